"""The shop's own tests: neither broker nor network. Run with ``python manage.py test``."""

from contextlib import ExitStack

from django.test import TransactionTestCase, override_settings

from optly_celery.testing import recording

from .models import Order


@override_settings(COLLECTOR_URL=None)
class ShopTest(TransactionTestCase):
    """No ``TestCase``: its transaction never commits, so no conversion would be sent."""

    def setUp(self):
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.events = stack.enter_context(recording())

    def test_the_page_shows_what_was_decided(self):
        page = self.client.get("/")

        decided = self.events.assert_decided("free_shipping", times=1)
        always = decided.variation_key == "always"
        self.assertContains(page, "Buy for €12.50" if always else "Buy for €17.40")
        self.assertContains(page, f"<code>{decided.variation_key}</code>")

    def test_a_purchase_is_an_order_and_a_conversion_of_the_same_visitor(self):
        self.client.get("/")
        page = self.client.post("/buy/", follow=True)

        visitor = self.events.decisions()[0].user_id
        self.events.assert_tracked("purchase", revenue=1250, value=12.5, user_id=visitor, times=1)
        self.assertEqual(Order.objects.get().visitor, visitor)
        self.assertContains(page, "Thank you!")

    def test_a_refused_card_is_neither(self):
        page = self.client.post("/buy/", {"refused": "yes"}, follow=True)

        self.events.assert_not_tracked()
        self.assertFalse(Order.objects.exists())
        self.assertContains(page, "no order, and nothing for Optimizely")

    def test_another_visitor_may_see_the_other_variation(self):
        for _ in range(40):
            self.client.get("/")
            self.client.post("/another/")

        decisions = self.events.decisions()
        self.assertEqual(len({decision.user_id for decision in decisions}), 40)
        self.assertEqual({d.variation_key for d in decisions}, {"always", "from_50_euros"})
