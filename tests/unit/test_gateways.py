from runtime.core.gateways import GatewayBook
from runtime.messages import Birth, Cancel, Draining, Offline, Tier

NOBODY = frozenset[str]()


def _birth(site: str, epoch: int = 1, queue_len: int = 0) -> Birth:
    return Birth(Tier.REGIONAL, site, "r", epoch, capacity=10, queue_len=queue_len)


def _choices(book: GatewayBook, avoid: frozenset[str] = NOBODY) -> set[str | None]:
    draws = [step / 10 for step in range(10)]
    return {book.choose(avoid=avoid, draws=(a, b)) for a in draws for b in draws}


def test_nobody_online_means_nobody_to_ask() -> None:
    assert GatewayBook().choose(avoid=NOBODY, draws=(0.0, 0.99)) is None


def test_the_less_loaded_of_two_is_asked() -> None:
    book = GatewayBook()
    book.note(_birth("busy", queue_len=9))
    book.note(_birth("idle"))

    assert book.choose(avoid=NOBODY, draws=(0.0, 0.99)) == "idle"


def test_a_gateway_that_failed_lately_is_asked_only_when_there_is_no_other() -> None:
    book = GatewayBook()
    book.note(_birth("a"))
    book.note(_birth("b"))

    assert _choices(book, frozenset({"a"})) == {"b"}
    assert _choices(book, frozenset({"a", "b"})) == {"a", "b"}


def test_offline_and_draining_gateways_are_not_asked() -> None:
    book = GatewayBook()
    for site in ("a", "b", "c"):
        book.note(_birth(site))
    book.note(Offline(Tier.REGIONAL, "a", "r", 1))
    book.note(Draining(Tier.REGIONAL, "b", "r", 1))

    assert _choices(book) == {"c"}


def test_a_will_of_an_earlier_life_does_not_hide_the_next() -> None:
    book = GatewayBook()
    book.note(_birth("a", epoch=2))

    assert not book.note(Offline(Tier.REGIONAL, "a", "r", 1))
    assert _choices(book) == {"a"}


def test_a_pinned_gateway_is_the_only_one() -> None:
    book = GatewayBook()
    book.note(_birth("a"))

    assert book.choose(avoid=NOBODY, draws=(0, 0), pinned="b") is None
    assert book.choose(avoid=frozenset({"a"}), draws=(0, 0), pinned="a") == "a"


def test_after_a_lost_connection_nothing_is_known() -> None:
    book = GatewayBook()
    book.note(_birth("a", epoch=5))

    book.forget_all()

    assert not book.online
    assert book.note(_birth("a", epoch=1))


def test_other_messages_are_no_state() -> None:
    assert not GatewayBook().note(Cancel("r1"))


def test_a_gateway_whose_state_was_removed_is_not_asked() -> None:
    book = GatewayBook()
    book.note(_birth("a", epoch=5))

    book.forget("a")
    book.forget("never seen")

    assert not book.online
    assert book.note(_birth("a", epoch=1))


def test_who_is_barred_is_not_asked_even_when_nobody_else_is_there() -> None:
    book = GatewayBook()
    book.note(_birth("a"))
    barred = frozenset({"a"})

    assert book.choose(avoid=NOBODY, draws=(0, 0), barred=barred) is None
    assert book.choose(avoid=NOBODY, draws=(0, 0), barred=barred, pinned="a") is None
    book.note(_birth("b"))
    assert book.choose(avoid=frozenset({"b"}), draws=(0, 0), barred=barred) == "b"
