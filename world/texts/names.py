"""What people call the world's things: several names a concept, and what kind of thing each is.

The first name is the usual one. Written by hand after the names that emojibase and CLDR give; a name that another
concept has as well ("boat", "flower") is left out, and `alike` says which names contain one another.
"""

from __future__ import annotations

from world.pictures.concepts import WorldConcept

NAMES: dict[str, str] = {
    "dog": "dog|puppy", "cat": "cat|kitty|kitten", "lion": "lion|big lion", "tiger": "tiger|striped tiger",
    "horse": "horse|pony", "cow": "cow|dairy cow", "pig": "pig|piglet", "rabbit": "rabbit|bunny",
    "bear": "bear|brown bear", "panda": "panda|panda bear", "koala": "koala|koala bear", "monkey": "monkey|ape",
    "chicken": "chicken|hen", "penguin": "penguin|little penguin", "frog": "frog|toad", "snake": "snake|serpent",
    "turtle": "turtle|tortoise", "whale": "whale|blue whale", "fish": "fish|swimming fish", "octopus": "octopus",
    "snail": "snail|garden snail", "bug": "bug|caterpillar", "honeybee": "honeybee|bee", "elephant": "elephant",
    "camel": "camel|dromedary", "unicorn": "unicorn", "spider": "spider", "mouse": "mouse|little mouse",
    "wolf": "wolf|grey wolf", "blowfish": "blowfish|pufferfish", "dolphin": "dolphin",
    "crocodile": "crocodile|alligator", "rooster": "rooster|cockerel", "hatching chick": "hatching chick|chick",
    "lady beetle": "ladybug|ladybird|lady beetle", "ant": "ant", "ewe": "sheep|ewe", "goat": "goat|billy goat",
    "paw prints": "*paw prints|*footprints", "poodle": "poodle", "boar": "boar|wild boar", "cactus": "cactus",
    "palm tree": "palm tree|palm", "evergreen tree": "fir|evergreen tree|pine tree", "tulip": "tulip",
    "sunflower": "sunflower", "rose": "rose|red rose", "four leaf clover": "clover|four leaf clover",
    "mushroom": "mushroom|toadstool", "maple leaf": "maple leaf", "cherry blossom": "cherry blossom|blossom",
    "deciduous tree": "oak|deciduous tree", "apple": "apple|red apple", "banana": "banana",
    "grapes": "*grapes|bunch of grapes", "strawberry": "strawberry", "pineapple": "pineapple",
    "watermelon": "watermelon|slice of watermelon", "lemon": "lemon", "peach": "peach",
    "cherries": "*cherries|cherry pair", "tomato": "tomato", "eggplant": "eggplant|aubergine",
    "corn": "*corn|corn cob|*maize", "hot pepper": "chilli|hot pepper|chilli pepper", "bread": "*bread|loaf",
    "hamburger": "hamburger|burger", "pizza": "pizza|slice of pizza", "doughnut": "doughnut|donut",
    "cookie": "cookie|biscuit", "birthday cake": "cake|birthday cake", "candy": "candy|sweet", "lollipop": "lollipop",
    "ice cream": "ice cream|*ice cream|ice cream cup", "chocolate bar": "chocolate bar|*chocolate",
    "french fries": "*french fries|*fries|*chips", "fried shrimp": "fried shrimp|shrimp|prawn",
    "spaghetti": "*spaghetti|*pasta", "poultry leg": "drumstick|chicken leg", "meat on bone": "*meat|piece of meat",
    "honey pot": "honey pot|pot of honey", "rice ball": "rice ball|onigiri", "tangerine": "tangerine|mandarin",
    "wine glass": "wine glass|glass of wine|*wine", "cocktail glass": "cocktail|cocktail glass|martini",
    "tropical drink": "tropical drink|*juice", "beer mug": "*beer|beer mug|mug of beer",
    "baby bottle": "baby bottle|bottle of milk", "coffee": "*coffee|cup of coffee|hot drink",
    "sake": "*sake|bottle of sake", "automobile": "car|automobile", "bus": "bus|coach", "ambulance": "ambulance",
    "fire engine": "fire engine|fire truck", "police car": "police car|patrol car", "tractor": "tractor",
    "bicycle": "bicycle|bike", "motorcycle": "motorcycle|motorbike", "locomotive": "locomotive|train|steam train",
    "airplane": "airplane|plane|aeroplane", "helicopter": "helicopter|chopper", "rocket": "rocket|spaceship",
    "sailboat": "sailboat|sailing boat", "ship": "ship|ferry", "speedboat": "speedboat|motor boat",
    "racing car": "racing car|race car", "aerial tramway": "cable car|aerial tramway",
    "delivery truck": "truck|delivery truck|lorry", "house": "house|home|cottage", "castle": "castle|fortress",
    "church": "church|chapel", "hospital": "hospital|clinic", "factory": "factory", "tent": "tent|camping tent",
    "ferris wheel": "ferris wheel|big wheel", "tokyo tower": "tower|tokyo tower",
    "japanese castle": "japanese castle|pagoda", "statue of liberty": "statue of liberty|statue",
    "circus tent": "circus tent|circus|big top", "roller coaster": "roller coaster", "hammer": "hammer",
    "wrench": "wrench|spanner", "scissors": "*scissors|pair of scissors", "fishing pole": "fishing pole|fishing rod",
    "nut and bolt": "bolt|screw", "kitchen knife": "knife|kitchen knife", "water pistol": "water pistol|toy gun",
    "dagger": "dagger|short sword", "shield": "shield", "syringe": "syringe|injection", "microscope": "microscope",
    "telescope": "telescope", "light bulb": "light bulb|bulb|lamp", "flashlight": "flashlight|torch",
    "toilet": "toilet|loo", "shower": "shower|shower head", "paintbrush": "paintbrush|brush",
    "paperclip": "paperclip|paper clip", "pushpin": "pushpin|drawing pin|pin", "anchor": "anchor",
    "crystal ball": "crystal ball|fortune ball", "balloon": "balloon|party balloon",
    "wrapped gift": "gift|present|wrapped gift", "envelope": "envelope|letter", "open book": "book|open book",
    "barber pole": "barber pole", "top hat": "top hat|hat", "crown": "crown|golden crown",
    "glasses": "*glasses|pair of glasses|*spectacles", "shirt": "shirt|t shirt",
    "jeans": "*jeans|pair of jeans|*trousers", "dress": "dress|gown", "bikini": "bikini|swimsuit",
    "high heeled shoe": "high heel|high heeled shoe", "running shoe": "sneaker|running shoe|trainer",
    "necktie": "necktie|tie", "handbag": "handbag|purse", "backpack": "backpack|rucksack", "ring": "ring|diamond ring",
    "lipstick": "lipstick", "kimono": "kimono", "guitar": "guitar", "violin": "violin|fiddle", "trumpet": "trumpet",
    "saxophone": "saxophone|sax", "musical keyboard": "piano|keyboard|musical keyboard",
    "microphone": "microphone|mike", "television": "television|tv", "camera": "camera",
    "mobile phone": "mobile phone|smartphone", "laptop": "laptop|computer|notebook", "telephone": "telephone|phone",
    "radio": "radio", "video game": "game controller|video game|gamepad", "alarm clock": "alarm clock|clock",
    "computer mouse": "computer mouse", "printer": "printer", "loudspeaker": "loudspeaker|megaphone",
    "soccer ball": "soccer ball|soccer football", "basketball": "basketball",
    "american football": "american football|rugby ball", "baseball": "baseball",
    "tennis": "tennis ball|tennis racket and ball", "eight ball": "eight ball|billiard ball",
    "trophy": "trophy|cup trophy", "sports medal": "medal|sports medal", "skis": "*skis|pair of skis",
    "game die": "die|*dice|game die", "bullseye": "bullseye|dartboard|target",
    "artist palette": "palette|paint palette", "crescent moon": "moon|crescent moon", "star": "star|yellow star",
    "cloud": "cloud|white cloud", "rainbow": "rainbow", "snowflake": "snowflake", "snowman": "snowman",
    "fire": "*fire|flame", "globe": "globe|planet earth|world globe", "water wave": "wave|water wave",
    "tornado": "tornado|twister", "eye": "eye", "ear": "ear", "mouth": "mouth|pair of lips", "skull": "skull",
    "ghost": "ghost|spook", "alien": "alien|martian", "poo": "*poo|pile of poo", "pumpkin": "pumpkin|halloween pumpkin",
    "red heart": "heart", "police officer": "police officer|policeman|cop", "guard": "guard|guardsman",
    "detective": "detective|spy", "santa claus": "*santa|*santa claus", "woman dancing": "dancer|woman dancing",
    "person surfing": "surfer|person surfing", "person biking": "cyclist|person biking",
    "person running": "runner|person running", "person swimming": "swimmer|person swimming",
    "snowboarder": "snowboarder",
}  # fmt: skip
# Kinds that people ask after: one, and several.
KINDS: dict[str, tuple[str, str]] = {
    "animal": ("animal", "animals"), "plant": ("plant", "plants"), "food": ("food", "foods"),
    "drink": ("drink", "drinks"), "vehicle": ("vehicle", "vehicles"), "building": ("building", "buildings"),
    "tool": ("tool", "tools"), "clothing": ("garment", "clothes"), "instrument": ("instrument", "instruments"),
    "device": ("device", "devices"), "person": ("person", "people"),
}  # fmt: skip
NUMBERS = ("one", "two", "three", "four")
OWN = 0.6  # share of mentions by the usual name


class Lexicon:
    """Names by concept number.

    Args:
        concepts: of the world, in order.
    """

    def __init__(self, concepts: list[WorldConcept]) -> None:
        self.kinds = [concept.kind for concept in concepts]
        names = [NAMES[concept.name].split("|") for concept in concepts]
        self.bare = [[name.startswith("*") for name in some] for some in names]
        self.names = [[name.removeprefix("*").split() for name in some] for some in names]
        self.alike = [self._alike(number) for number in range(len(names))]

    def __len__(self) -> int:
        """Concepts."""
        return len(self.names)

    def _alike(self, number: int) -> frozenset[int]:
        """Concepts with a name that holds all words of one of this one's names, or the other way round; itself too."""
        mine = [set(name) for name in self.names[number]]
        return frozenset(
            other
            for other, names in enumerate(self.names)
            if any(a <= set(name) or set(name) <= a for a in mine for name in names)
        )
