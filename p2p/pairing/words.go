package pairing

import "strings"

// wordCount is how many words both sides show.
const wordCount = 4

// wordsOf turns random bytes into words, one a byte.
func wordsOf(b []byte) []string {
	out := make([]string, len(b))
	for i, x := range b {
		out[i] = words[x]
	}
	return out
}

// words has 256 short, plain and distinct English nouns. The order is part of
// the protocol: both sides must show the same.
var words = [256]string(strings.Fields(`
acorn actor album alley amber anchor angle ankle apple apron arrow atlas
attic autumn bacon badge bagel baker ball bamboo banana banjo barn basil
basket beach beacon bean bear beaver bell bench berry bike birch bird
biscuit blanket boat bone book boot bottle branch bread brick bridge brook
broom brush bubble bucket bulb butter button cabin cable cactus camel camera
candle canoe canyon card carpet carrot castle cat cave cedar cello chain
chair chalk cheese cherry chess chest circle city clay cliff clock cloud
clover coast coat cobra coffee coin comet copper coral cork corn cotton
couch crab crane crayon creek cricket crown cup curtain daisy dancer desert
diamond dinner doctor dolphin donkey door dragon drum duck eagle earth echo
elbow elephant engine falcon farm feather fence ferry fiddle field finger
fire fish flag flame flask flower flute forest fork fountain fox frog
garden garlic gate ghost giant ginger giraffe glass glove goat gold goose
grape grass guitar hammer harbor harp hat hawk hazel hill honey hook horse
hotel house iceberg igloo iron island ivory jacket jaguar jelly jewel juice
jungle kettle key king kite kitten knee knight ladder lake lamp lantern
lemon leopard letter lily lion lizard lobster lock magnet mango maple marble
market meadow melon mirror monkey moon mountain mouse museum needle nest
nickel ocean olive onion orange orchid otter oven owl oyster paddle paint
palm panda paper parrot peach peanut pearl pencil pepper piano pillow pilot
pine pirate planet plum pocket pond puppet quartz queen rabbit radio river
rocket saddle salmon ship snail
`))
