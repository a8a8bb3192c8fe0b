import threading

from services.inference.video.ahead import Ahead


def test_items_come_out_in_their_order_and_end_with_the_close():
    ahead: Ahead[int] = Ahead(100)
    for number in range(5):
        ahead.put(number, 20)
    ahead.close()
    assert list(ahead) == [0, 1, 2, 3, 4]


def test_who_would_exceed_the_limit_waits_until_something_was_taken():
    ahead: Ahead[str] = Ahead(100)
    ahead.put("first", 60)
    there = threading.Event()

    def put_more() -> None:
        ahead.put("second", 60)
        there.set()

    thread = threading.Thread(target=put_more)
    thread.start()
    assert not there.wait(0.05)
    items = iter(ahead)
    assert next(items) == "first"
    assert there.wait(10)
    assert next(items) == "second"
    thread.join()


def test_an_item_larger_than_the_limit_passes_alone():
    ahead: Ahead[str] = Ahead(10)
    ahead.put("large", 1000)
    ahead.close()
    assert list(ahead) == ["large"]


def test_who_waits_for_an_item_gets_it_from_another_thread():
    ahead: Ahead[int] = Ahead(10)
    threading.Timer(0.02, lambda: (ahead.put(7, 1), ahead.close())).start()
    assert list(ahead) == [7]
