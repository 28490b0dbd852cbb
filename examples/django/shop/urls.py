"""The pages of the shop."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.index, name="shop"),
    path("buy/", views.buy, name="buy"),
    path("another/", views.another, name="another"),
    path("arrived/", views.arrived, name="arrived"),
]
