"""Finds e-mail addresses of accounts that Synapse can't find again.

Synapse looks an address up in one form only: space around it stripped, str.casefold of the part before the @, str.lower of the
part after it (seen in Synapse 1.160). What was stored before it did so, or was put there by a migration or by hand, may have
another form. Neither PostgreSQL's lower(), which in the locale C knows A to Z only, nor another language's idea of case gives
the same answer: the function below does, because Synapse calls the same two.
"""

from __future__ import annotations

import plugin_pb2 as pb
from synapse_doctor_plugin import Check, Code, value

STALE, TAKEN, OTHER, NOTHING = (f"account-emails/{fault}" for fault in ("stale-form", "taken", "other-mailbox", "no-address"))

QUERY = "SELECT user_id, address FROM user_threepids WHERE medium = 'email' ORDER BY address"
HOLDERS = "SELECT address, user_id FROM user_threepids WHERE medium = 'email' AND address = ANY(%s)"
MOST = 1000  # findings; more of them would say nothing new


def canonical(address: str) -> str | None:
    """The form in which Synapse looks an address up; None for what it takes for no address at all."""
    local, at, domain = address.strip().partition("@")
    if not at or "@" in domain:
        return None
    return local.casefold() + "@" + domain.lower()


def same_mailbox(address: str, form: str) -> bool:
    """Whether only the case differs, for any mail server.

    Case folding turns some letters into others: ß into ss, the Kelvin sign into k, the ligature ﬁ into fi. Those may be the
    mailbox of somebody else, who could then reset the account's password.
    """
    def foreign(text: str) -> int:
        return sum(not c.isascii() for c in text)

    return len(address.strip()) == len(form) and foreign(address) == foreign(form)


def run(target, report):
    for db in target.meeting(pb.NEED_SYNAPSE):
        if not db.holds("main"):
            continue
        with db.read() as cursor:
            cursor.execute(QUERY)
            looked_at, stale = 0, []
            for user, address in cursor:
                looked_at += 1
                form = canonical(address)
                if form != address:
                    stale.append((user, address, form))
                report.progress("addresses", looked_at)
            forms = [form for _, _, form in stale if form]
            cursor.execute(HOLDERS, (forms,))
            users = {address: {user} for address, user in cursor}  # who has, or would have, each form
        for user, _, form in stale:
            users.setdefault(form, set()).add(user)
        for user, address, form in stale[:MOST]:
            report.find(finding(db.label, user, address, form, users[form] - {user}))
        if len(stale) > MOST:
            raise RuntimeError(f"{len(stale)} addresses are not as Synapse looks them up; the first {MOST} are shown")
        report.covered(f"{looked_at} addresses")


def finding(database, user, address, form, others):
    """What is wrong with one address."""
    found = pb.Finding(
        severity=pb.SEVERITY_WARNING, database=database, object=pb.Object(kind="address", name=address),
        observed=f"{address}, of {user}", expected=form or "something with one @ in it", evidence={"query": QUERY})
    if form is None:
        found.code = NOTHING
        found.summary = f"{user} has {address!r} for an e-mail address, which is none: nobody can log in or reset a password with it."
        found.remedy = "Have it removed: ask the user for the right address, and set it by the admin API."
    elif others:
        found.code, found.severity = TAKEN, pb.SEVERITY_ERROR
        found.summary = f"{address} of {user} is looked up as {form}, which belongs to {', '.join(sorted(others))} too."
        found.remedy = "Ask whose address it is, and remove it from the other account by the admin API."
    elif not same_mailbox(address, form):
        found.code = OTHER
        found.summary = f"{address} of {user} is looked up as {form}, which may be the mailbox of somebody else."
        found.remedy = "Ask the user for an address without such letters, and set it by the admin API."
    else:
        found.code, found.fixable = STALE, True
        found.summary = f"Synapse looks for {form} and does not find {address} of {user}: no login and no new password by e-mail."
        found.remedy = "synapse-doctor fix account-emails stores it as Synapse looks it up."
    return found


RENAME = "UPDATE user_threepids SET address = $2 WHERE medium = 'email' AND address = $1"
DELETE = "DELETE FROM user_threepids WHERE medium = 'email' AND address = $1"
# An identity server that the address was published at is told of its end under the address that is kept here.
RENAME_BOUND = "UPDATE user_threepid_id_server SET address = $2 WHERE medium = 'email' AND address = $1 AND user_id = $3"
KEPT = "SELECT row_to_json(t)::text FROM user_threepids t WHERE medium = 'email' AND address = $1"
RESTORE = "INSERT INTO user_threepids SELECT * FROM json_populate_record(NULL::user_threepids, $1::json)"

IS_ALONE = """SELECT count(*) FILTER (WHERE address = $1 AND user_id = $3) = 1 AND count(*) FILTER (WHERE address = $2) = 0
FROM user_threepids WHERE medium = 'email' AND address IN ($1, $2)"""
IS_TWICE = """SELECT count(*) FILTER (WHERE user_id = $3) = 2 AND count(*) = 2
FROM user_threepids WHERE medium = 'email' AND address IN ($1, $2)"""
IS_UNBOUND = "SELECT count(*) = 0 FROM user_threepid_id_server WHERE medium = 'email' AND address = $1 AND user_id = $2"


def plan(target, findings):
    """One plan for each database: all its addresses in one transaction."""
    for label in sorted({f.database for f in findings if f.fixable}):
        mine = [f for f in findings if f.fixable and f.database == label]
        yield pb.PlannedFix(
            id="account-emails/store-as-looked-up", title="Store e-mail addresses in the form in which Synapse looks them up",
            covers=[pb.FindingKey(code=f.code, database=f.database, object=f.object) for f in mine],
            risk=pb.RISK_CAREFUL, expects=pb.EXPECTATION_SYNAPSE, database=label, reversible=True, undo_on_failure=True,
            steps=[step for f, has in zip(mine, held(target.database(label), mine)) for step in steps(label, f, *has)])


def held(db, findings):
    """Of each address: whose it is, and in which forms the account has it published at identity servers or stored twice."""
    with db.read() as cursor:
        for f in findings:
            old, new = f.object.name, f.expected
            cursor.execute("SELECT user_id, address FROM user_threepids WHERE medium = 'email' AND address IN (%s, %s)", (old, new))
            rows = cursor.fetchall()
            user = next((u for u, address in rows if address == old), None)
            if user is None:
                raise RuntimeError(f"{old} is not there any more: check again")
            cursor.execute(
                "SELECT id_server, address FROM user_threepid_id_server WHERE medium = 'email' AND user_id = %s AND address IN (%s, %s)",
                (user, old, new))
            bound = cursor.fetchall()
            yield user, (user, new) in rows, {s for s, a in bound if a == old}, {s for s, a in bound if a == new}


def steps(label, f, user, twice, bound_old, bound_new):
    """Renames the address, or removes it where the account has the right form besides."""
    old, new = f.object.name, f.expected
    changed = f"{old} is not as it was when this was planned: check again."
    common = {"database": label, "mode": pb.SQL_MODE_GROUP, "group": "addresses"}
    names = [value(old), value(new)]
    if twice:
        yield pb.Step(title=f"Remove {old}: {user} has {new} as well", sql=pb.SqlStep(
            statement=DELETE, args=names[:1], max_rows=1, guard=pb.Guard(query=IS_TWICE, args=[*names, value(user)], otherwise=changed),
            save=pb.Save(table="user_threepids", query=KEPT, args=names[:1]), undo=[pb.UndoSql(statement=RESTORE, for_each_saved=True)], **common))
    else:
        yield pb.Step(title=f"Store {old} of {user} as {new}", sql=pb.SqlStep(
            statement=RENAME, args=names, max_rows=1, guard=pb.Guard(query=IS_ALONE, args=[*names, value(user)], otherwise=changed),
            undo=[pb.UndoSql(statement=RENAME, args=names[::-1], guard=pb.Guard(
                query=IS_ALONE, args=[*names[::-1], value(user)], otherwise=f"{new} has changed since."))], **common))
    if bound_old and not bound_new:
        yield pb.Step(title=f"The same where {user} has published it at {len(bound_old)} identity servers", sql=pb.SqlStep(
            statement=RENAME_BOUND, args=[*names, value(user)], max_rows=len(bound_old),
            guard=pb.Guard(query=IS_UNBOUND, args=[value(new), value(user)], otherwise=changed),
            undo=[pb.UndoSql(statement=RENAME_BOUND, args=[*names[::-1], value(user)])], **common))


CHECK = Check(
    id="account-emails",
    title="E-mail addresses are stored as Synapse finds them",
    why="Who registered such an address can't log in or reset a password with it, and somebody else can register it once more.",
    needs=[pb.NEED_SYNAPSE],
    codes=[
        Code(STALE, "an address is stored in a form that is never looked up", pb.SEVERITY_WARNING),
        Code(TAKEN, "two accounts have the same address", pb.SEVERITY_ERROR),
        Code(OTHER, "an address is looked up as another mailbox", pb.SEVERITY_WARNING),
        Code(NOTHING, "an address that is none", pb.SEVERITY_WARNING),
    ],
    run=run, plan=plan,
    changes=pb.Effects(tables=["user_threepids", "user_threepid_id_server"]),
)
