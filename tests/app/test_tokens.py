"""Tokens on both databases: what is stored cannot be used, and an ended token is no token."""

import pytest
from sqlalchemy import select, update

from tracetune.app.tokens import check_token, create_token, list_tokens, revoke_token
from tracetune.core.errors import InputError, NotFound
from tracetune.store import tables
from tracetune.store.open import open_store


def test_a_token_is_known_by_its_secret_alone(database):
    made = create_token("delivery", ["write", "read"])
    assert check_token(made.secret) == made.token
    assert made.token.scopes == ("read", "write")
    for wrong in ("", "tt_", made.secret[:-1], made.secret + "a", made.token.prefix, made.secret.upper(), "é"):
        assert check_token(wrong) is None


def test_the_secret_is_nowhere_in_the_database(database):
    made = create_token("delivery", ["read"])
    with open_store() as store, store.read() as connection:
        row = connection.execute(select(tables.tokens)).one()
    assert made.secret not in str(tuple(row))
    assert len(made.secret) == 46
    assert create_token("delivery", ["read"]).secret != made.secret


def test_a_revoked_token_and_an_expired_one_are_no_tokens(database):
    revoked, expired, good = (create_token(name, ["read"], expires_days=1) for name in "abc")
    revoke_token(revoked.token.token_id)
    with open_store() as store, store.write() as connection:
        mine = tables.tokens.c.token_id == expired.token.token_id
        connection.execute(update(tables.tokens).where(mine).values(expires_at="2020-01-01T00:00:00.000000+00:00"))
    assert check_token(revoked.secret) is None
    assert check_token(expired.secret) is None
    assert check_token(good.secret) is not None


def test_revoking_twice_keeps_the_first_time_and_an_unknown_token_is_not_found(database):
    made = create_token("a", ["read"])
    first = revoke_token(made.token.token_id)
    assert revoke_token(made.token.token_id) == first
    with pytest.raises(NotFound, match="Token nothing not found"):
        revoke_token("nothing")


def test_admin_has_every_scope_and_the_others_stand_alone(home):
    assert all(create_token("a", ["admin"]).token.allows(scope) for scope in ("read", "write", "train", "admin"))
    write = create_token("a", ["write"]).token
    assert [scope for scope in ("read", "write", "train", "admin") if write.allows(scope)] == ["write"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"scopes": []}, "token.scopes"),
        ({"scopes": ["read", "root"]}, "got 'root'"),
        ({"name": ""}, "token.name"),
        ({"name": "a\nb"}, "printable"),
        ({"name": "a" * 129}, "128"),
        ({"expires_days": 0}, "token.expires_days"),
        ({"expires_days": 4000}, "3650"),
    ],
)
def test_a_token_that_cannot_be_is_refused(home, values, told):
    with pytest.raises(InputError, match=told):
        create_token(**{"name": "a", "scopes": ["read"], **values})
    assert create_token("a" * 128, ["read"], expires_days=3650).secret


def test_the_list_is_paged_newest_first(home):
    for name in "abc":
        create_token(name, ["read"])
    first = list_tokens(limit=2)
    rest = list_tokens(limit=2, cursor=first.next_cursor)
    assert [token.name for token in (*first.items, *rest.items)] == ["c", "b", "a"]
    assert rest.next_cursor is None
