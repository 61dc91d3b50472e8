"""Time budgets of monitors."""

from unnoise.training.clock import Clock
from unnoise.training.monitors.monitor import TimeBudget


def test_measuring_keeps_to_its_share_of_the_time(monkeypatch):
    clock, budget = Clock(600.0, None), TimeBudget(0.05)
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock.start()
    for _ in range(600):
        now[0] += 1.0
        if budget.due(clock):
            with budget.spending(clock):
                now[0] += 3.0
    assert 3 <= budget.spent <= 0.05 * 600 + 3
    assert budget.spent / 3 >= 4, "soon, then at growing intervals"
