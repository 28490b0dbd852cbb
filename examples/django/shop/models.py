"""What the shop remembers."""

from django.db import models


class Order(models.Model):
    """One bag of coffee, bought."""

    visitor = models.CharField(max_length=64)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    at = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return f"order {self.pk}, {self.price} EUR"
