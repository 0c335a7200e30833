"""What can truly be said of a scene, as claims: (what, of which concept, and of which other or where)."""

from __future__ import annotations

from world.tasks.scene import BIG, SMALL, Scene, Thing

GAP = 18  # pixels between middles from which one thing is to the side of another, as in pre-training
OFF = 13  # pixels off the picture's middle from which a thing is on a side
SLACK = 10  # pixels by which a claim must be false where it is to be false
Claim = tuple[str, str, str]
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def sides(thing: Thing, slack: int = 0) -> set[str]:
    """Sides of the picture that a thing is on."""
    found = {("left" if thing.x < 48 else "right"): thing.x, ("top" if thing.y < 48 else "bottom"): thing.y}
    return {side for side, value in found.items() if abs(value - 48) >= OFF - slack}


def towards(a: Thing, b: Thing, direction: str, slack: int = 0) -> bool:
    """Whether a lies in a direction of b."""
    away = {"left": b.x - a.x, "right": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}
    return away[direction] >= GAP - slack


def holds(claim: Claim, scene: Scene, slack: int = 0) -> bool:
    """Whether a claim is true of a scene; `slack` pixels make that easier, so that what fails is clearly false.

    Args:
        claim: ("left" | "right" | "above" | "below", concept, concept), ("at", concept, sides), ("big" | "small",
            concept, ""), ("count", number, ""), ("ground", colour, "") or ("shown", concept, "").
        scene: what is shown.
        slack: pixels.
    """
    what, first, second = claim
    if what == "count":
        return len(scene.things) == int(first)
    if what == "ground":
        return scene.ground in ("" if slack else first, first)
    things = scene.by_code()
    if first not in things or (what in OPPOSITE and second not in things):
        return False
    thing = things[first]
    if what == "shown":
        return True
    if what == "big":
        return thing.size >= BIG - slack / 2
    if what == "small":
        return thing.size <= SMALL + slack / 2
    if what == "at":
        return set(second.split()) <= sides(thing, slack)
    return towards(thing, things[second], what, slack)
