"""Templates of the questions about the embedded scenes and clips."""

NUMBERS = {2: "two", 3: "three", 4: "four"}
COUNT = ("how many emoji are there?", "how many things does the picture show?", "what is the number of emoji?")
ANY = ("is there any {k}?", "do we see any {k}?", "does the picture show any {k}?")
MISSING = ("is there no {k}?", "does the picture show no {k}?", "is it true that we see no {k}?")
SIDES = {
    "left": ("on the left", "furthest left"),
    "right": ("on the right", "furthest right"),
    "top": ("at the top", "highest up"),
    "bottom": ("at the bottom", "lowest"),
}
SIDE = ("what kind of thing is {w}?", "which kind of emoji is {w}?", "{w} there is what kind of thing?")
RELATIONS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "top": ("above", "higher than"),
    "bottom": ("below", "lower than"),
}
RELATED = ("is the {a} {w} the {b}?", "do we see the {a} {w} the {b}?", "is it the {a} that is {w} the {b}?")

PARTS = ("how many emoji follow one another?", "how many parts does the clip have?", "what is the number of emoji?")
APPEARS = ("does any {k} appear?", "do we see any {k}?", "is there any {k} in the clip?")
FIRST = (
    "what kind of thing comes first?",
    "which kind of emoji is at the start?",
    "with what kind does the clip start?",
)
LAST = ("what kind of thing comes last?", "which kind of emoji is at the end?", "with what kind does the clip end?")
NEXT = (
    "what kind of thing comes right after the {k}?",
    "which kind follows the {k}?",
    "what comes next after the {k}?",
)
BEFORE = ("does the {a} come before the {b}?", "is the {a} shown before the {b}?", "is the {a} earlier than the {b}?")
