"""Bounds of what comes from outside, in one place: an input beyond them is refused by one line before it costs memory or time."""

TRACKED = False  # what is refused makes no result

CONFIG_CHARACTERS = 4 * 2**20
"""Of a registry or run configuration with its aliases written out (the shipped registries: 0.1 * 2**20). A value counts `CONFIG_VALUE`."""
CONFIG_VALUE = 16
CONFIG_DEPTH = 32
"""Mappings and lists within each other."""
INTEGER_BITS = 63
"""Of a number in a configuration."""
RESAMPLES = 10**6
NAME = 100
"""Characters of a name: file names hold it with a host and a process, and a file name has 255 bytes."""
QUOTED = 200
"""Characters of a value that an error quotes."""

MAX_PIXELS = 2**26
"""Of one image, and of all that are checked at a time [pixels]: 8,192 x 8,192. The largest mammograms and photographs have 30 to 50
million; JPEG 2000, the hungriest format, takes 24 bytes a pixel: 1.6 GB, so that the 2 GB that `prepare` asks of a scheduler suffice."""
MAX_IMAGE_BYTES = 2**28
"""Of one encoded image [bytes]: what `MAX_PIXELS` take as RGBA without any compression."""
PAGES = 256
"""Of a TIFF that are looked at: two that are no thumbnails suffice to refuse it."""
MAX_CELL_CHARACTERS = 2**24
"""Of one cell of a CSV [characters]: no report or base64 picture in a column that nobody reads comes near."""
MAX_VALUE_CHARACTERS = 2**17
"""Of one text that is used (a question, a label, a name) [characters]: no model reads a question of so many."""
MAX_VALUES_CHARACTERS = 2**28
"""Of all texts of a data set [characters], which are in memory at a time: 2,000 for each of 130,000 rows."""
MAX_COLUMN_BYTES = 2**28
"""Of one column of a row group of Parquet [bytes, unpacked], unless the file itself has `PACKED_RATIO`th of it..."""
PACKED_RATIO = 20
"""...since images hardly pack: a chunk that packs better may hold one huge cell, and reading it takes four times its size."""
MAX_BATCH_BYTES = 2**26
"""Of rows of Parquet that are in memory at a time [bytes], as if each cell were as large as its column: repeated cells are stored once."""
MAX_ARRAY_BYTES = 2**28
"""Of one array of an npz file that is read whole [bytes]."""
MAX_TEXT_BYTES = 2**26
"""Of a JSON file, or an unpacked spreadsheet [bytes]: as Python objects they take up to 25 times that."""
MAX_SHEET_ROWS, MAX_SHEET_COLUMNS = 10_000, 200
"""Of a spreadsheet: a file of some kB may claim a million rows of 16,384 empty cells."""

ARCHIVE_RATIO, ARCHIVE_SMALL = 200, 2**30
"""An archive that unpacks to more than so many times its own size and more than so many bytes is taken for a bomb..."""
ARCHIVE_BLOCK = 2**12
"""...where a member counts at least so many bytes: what an empty file costs on a disk, and its entry in memory."""
ARCHIVE_NAME_BYTES = 2**16
"""Of the header of a tar that holds a long name or other attributes [bytes]: Python's tarfile reads it whole."""

JSON_BYTES = 64 * 2**20
"""Of one JSON file of a checkpoint: the largest tokenizer.json of the study's models has 33 MB."""
HEADER_BYTES = 100 * 2**20
"""Of a safetensors header, which is read whole: the library's own limit."""
SHARDS = 1000
"""Files of weights that one index names: the largest open models have 200."""
REPEATED = 2**16
"""Layers, heads, experts, labels, tokens of an image: libraries make lists as long before they make a module."""
NUMBERS_PER_BYTE = 2
"""That a model may have for each byte of its weights: 4 bits a number are the fewest."""
NUMBERS_FREE = 2**28
"""That any model may have, 1 GB: what its class makes and drops again."""
NUMBERS_OF_TENSOR = 2**16
"""That a tensor counts at least: Python takes a module and its time for a few of them."""
SIDE = 4096
"""Pixels of the image that an image processor makes: the largest side of the study's models is 896."""
PIXELS = 2**24
"""Of it, where its processor keeps the image's shape and bounds the area."""
TEMPLATE_SECONDS = 10.0
"""For one prompt from a chat template: real ones take a millisecond."""
TEMPLATE_BYTES = 2**29
"""Of memory for it, and much more than a real one takes."""
PROMPT_CHARACTERS = 2**20
"""Of what it makes of one question: more than any model's context."""
