import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "plugin"))

import check  # noqa: E402
from throwaway import Homeserver  # noqa: E402


class TestForms(unittest.TestCase):
    def test_the_form_that_is_looked_up(self):
        for address, form in {
            "alice@example.org": "alice@example.org",
            " Alice@Example.ORG\n": "alice@example.org",
            "ÉMILE@example.org": "émile@example.org",
            "Straße@example.org": "strasse@example.org",
            "a@EXAMPLE.ORGß": "a@example.orgß",  # the domain is put in lower case, not folded
            "alice": None,
            "a@b@c": None,
            "": None,
        }.items():
            self.assertEqual(check.canonical(address), form, address)

    def test_only_the_case_may_differ(self):
        for address in ("Alice@Example.org", "ÉMILE@example.org", "ΣΊΣΥΦΟΣ@example.gr", " a@b "):
            self.assertTrue(check.same_mailbox(address, check.canonical(address)), address)
        for address in ("Straße@example.org", "\u212aevin@example.org", "o\ufb03ce@example.org", "alice@\u212aelvin.example", "İ@example.org"):
            self.assertFalse(check.same_mailbox(address, check.canonical(address)), address)


class TestOnAServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        home = Homeserver()
        cls.home = home.__enter__()
        cls.addClassCleanup(home.__exit__, None, None, None)

    def found(self):
        (report,) = self.home.doctor("check", "account-emails", "--fail-on=info")["checks"]
        self.assertNotIn(report["status"], ("unknown", "skipped"), report["reason"])
        return sorted((f["code"].split("/")[1], f["object"]["name"]) for f in report["findings"])

    def content(self):
        return (self.home.sql("SELECT * FROM user_threepids ORDER BY address"), self.home.sql("SELECT * FROM user_threepid_id_server ORDER BY 3, 4"))

    def test_found_planned_applied_cured_undone(self):
        self.home.sql("""INSERT INTO user_threepids VALUES ('@user1:test.example', 'email', 'one@example.org', 1, 1),
            ('@user1:test.example', 'msisdn', '4917012345', 1, 1)""")
        self.assertEqual(self.found(), [])

        self.home.sql("""INSERT INTO user_threepids VALUES ('@user1:test.example', 'email', 'ONE@example.org', 2, 3),
            ('@user2:test.example', 'email', 'Émile@Example.org', 4, 5), ('@user3:test.example', 'email', 'Weiß@example.org', 6, 7)""")
        self.home.sql("INSERT INTO user_threepid_id_server VALUES ('@user2:test.example', 'email', 'Émile@Example.org', 'id.example')")
        self.home.show("account-emails")  # make try ends here
        broken = self.content()
        self.assertEqual(self.found(), [("other-mailbox", "Weiß@example.org"), ("stale-form", "ONE@example.org"), ("stale-form", "Émile@Example.org")])

        (plan,) = self.home.doctor("fix", "account-emails")["plans"]
        self.assertEqual((plan["id"], plan["status"]), ("account-emails/store-as-looked-up", "planned"))
        self.assertEqual(self.content(), broken, "showing the plan changed something")

        report = self.home.doctor("fix", "account-emails", "--apply", "--yes")
        self.assertEqual([p["status"] for p in report["plans"]], ["applied"])
        self.assertEqual(self.found(), [("other-mailbox", "Weiß@example.org")])
        addresses, published = self.content()
        self.assertEqual([a[2] for a in addresses], ["4917012345", "Weiß@example.org", "one@example.org", "émile@example.org"])
        self.assertEqual([a[2] for a in published], ["émile@example.org"])

        self.home.undo()
        self.assertEqual(self.content(), broken, "undo did not put everything back")


if __name__ == "__main__":
    unittest.main()
