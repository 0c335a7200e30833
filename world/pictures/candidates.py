"""Candidates for the world's concepts by kind, as emojibase labels them, most distinctive first."""

from __future__ import annotations

CANDIDATES = {
    "animal": "dog face|cat face|lion|tiger face|horse face|cow face|pig face|rabbit face|bear|panda|koala|monkey face|"
    "chicken|penguin|frog|snake|turtle|spouting whale|fish|octopus|snail|butterfly|bug|honeybee|elephant|camel|crab|"
    "scorpion|owl|eagle|duck|shark|bat|fox|unicorn|spider|mouse face|wolf|blowfish|dolphin|crocodile|rooster|"
    "hatching chick|lady beetle|ant|ewe|goat|gorilla|lizard|shrimp|squid|two hump camel|paw prints|poodle|boar|ox",
    "plant": "cactus|palm tree|evergreen tree|tulip|sunflower|rose|four leaf clover|mushroom|maple leaf|"
    "cherry blossom|deciduous tree|hibiscus|sheaf of rice|seedling",
    "food": "red apple|banana|grapes|strawberry|pineapple|watermelon|lemon|peach|cherries|tomato|eggplant|carrot|"
    "ear of corn|hot pepper|bread|cheese wedge|hamburger|pizza|hot dog|taco|burrito|popcorn|doughnut|cookie|"
    "birthday cake|candy|lollipop|ice cream|soft ice cream|chocolate bar|french fries|croissant|avocado|cucumber|"
    "potato|bacon|fried shrimp|spaghetti|poultry leg|meat on bone|honey pot|rice ball|pear|tangerine|melon|pancakes",
    "drink": "wine glass|cocktail glass|tropical drink|beer mug|baby bottle|hot beverage|sake|glass of milk|"
    "bottle with popping cork",
    "vehicle": "automobile|bus|ambulance|fire engine|police car|tractor|bicycle|motorcycle|locomotive|airplane|"
    "helicopter|rocket|sailboat|ship|speedboat|motor scooter|racing car|canoe|aerial tramway|delivery truck",
    "building": "house|castle|church|hospital|factory|tent|ferris wheel|mosque|tokyo tower|japanese castle|"
    "statue of liberty|circus tent|roller coaster|volcano|fountain|moai",
    "tool": "hammer|wrench|pick|gear|scissors|key|locked|fishing pole|magnet|nut and bolt|kitchen knife|water pistol|"
    "dagger|bow and arrow|shield|syringe|microscope|telescope|candle|light bulb|flashlight|toilet|shower|"
    "paintbrush|paperclip|pushpin|bomb|anchor|crystal ball|balloon|wrapped gift|envelope|open book|barber pole|"
    "briefcase|newspaper|money bag|gem stone|pill|thermometer|door|bed|umbrella",
    "clothing": "top hat|crown|glasses|t shirt|jeans|dress|bikini|high heeled shoe|running shoe|necktie|handbag|"
    "backpack|ring|lipstick|kimono|gloves|scarf|socks|graduation cap",
    "instrument": "guitar|violin|trumpet|saxophone|drum|musical keyboard|bell|microphone|banjo",
    "device": "television|camera|mobile phone|laptop|telephone|radio|video game|alarm clock|floppy disk|optical disk|"
    "computer mouse|printer|loudspeaker|headphone|watch|movie camera|joystick",
    "sport": "soccer ball|basketball|american football|baseball|tennis|pool 8 ball|trophy|sports medal|skis|"
    "boxing glove|ice skate|game die|puzzle piece|teddy bear|ping pong|bullseye|artist palette|kite",
    "sky": "sun|crescent moon|star|cloud|rainbow|snowflake|snowman|fire|droplet|high voltage|comet|"
    "globe showing americas|water wave|ringed planet|tornado",
    "body": "eye|ear|nose|mouth|tooth|bone|brain|foot|skull|ghost|alien|robot|pile of poo|jack o lantern|red heart",
    "person": "police officer|construction worker|guard|detective|cook|farmer|firefighter|astronaut|pilot|scientist|"
    "mechanic|artist|teacher|judge|health worker|fairy|vampire|mermaid|genie|prince|princess|santa claus|ninja|"
    "person dancing|woman dancing|person surfing|person biking|person running|person swimming|skier|snowboarder|"
    "person rowing boat|person golfing|person lifting weights|horse racing",
}
MOST = {
    "animal": 42, "plant": 11, "food": 36, "drink": 7, "vehicle": 18, "building": 12, "tool": 30, "clothing": 15,
    "instrument": 8, "device": 13, "sport": 14, "sky": 13, "body": 12, "person": 12,
}  # fmt: skip
SHORT = {
    "sheaf of rice": "rice", "red apple": "apple", "globe showing americas": "globe", "pool 8 ball": "eight ball",
    "high voltage": "lightning", "spouting whale": "whale", "jack o lantern": "pumpkin", "locked": "lock",
    "t shirt": "shirt", "ear of corn": "corn", "pile of poo": "poo", "hot beverage": "coffee",
}  # fmt: skip
