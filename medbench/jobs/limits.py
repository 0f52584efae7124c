"""What files from outside may take: one constant a limit, with its unit and its reason. More is refused in one line."""

TRACKED = False  # what is refused has no result

JSON_BYTES = 64 * 2**20  # of one JSON file of a checkpoint: the largest tokenizer.json of the study's models has 33 MB
HEADER_BYTES = 100 * 2**20  # of a safetensors header, which is read whole: the library's own limit
SHARDS = 1000  # files of weights that one index names: the largest open models have 200
REPEATED = 2**16  # layers, heads, experts, labels, tokens of an image: libraries make lists as long before they make a module
NUMBERS_PER_BYTE = 2  # that a model may have for each byte of its weights: 4 bits a number are the fewest
NUMBERS_FREE = 2**28  # that any model may have, 1 GB: what its class makes and drops again
NUMBERS_OF_TENSOR = 2**16  # that a tensor counts at least: Python takes a module and its time for a few of them
SIDE = 4096  # pixels of the image that an image processor makes: the largest side of the study's models is 896
PIXELS = 2**24  # of it, where its processor keeps the image's shape and bounds the area
TEMPLATE_SECONDS = 10.0  # for one prompt from a chat template: real ones take a millisecond
TEMPLATE_BYTES = 2**29  # of memory for it, and much more than a real one takes
PROMPT_CHARACTERS = 2**20  # of what it makes of one question: more than any model's context
