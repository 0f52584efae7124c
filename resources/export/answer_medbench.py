"""Ask this model about an image, with medbench, which reads the layout of its base: python example.py IMAGE "Is there a nodule?" [BASE]"""

import json
import sys
from pathlib import Path

from medbench.adapt import tuned
from medbench.datasets.images import ImageRow, decode
from medbench.jobs.microbatching import Microbatching
from medbench.models import answering
from medbench.models.asking import Asking
from medbench.models.checkpoint import Source

HERE = Path(__file__).resolve().parent
ABOUT = json.loads((HERE / "medbench.json").read_text(encoding="utf-8"))
source = Source(**ABOUT["source"])
if sys.argv[3:]:  # the base lies in another folder
    source = source._replace(checkpoint=sys.argv[3])
put = Asking(**{name: ABOUT["asking"][name] for name in Asking._fields})
model = answering.load(source, lambda loaded: tuned.read(HERE, loaded, source))


def answer(image: bytes, question: str) -> str:
    """In the words in which the model was trained and tested. `image`: an encoded file."""
    row = ImageRow("image", image, False)
    asked = answering.Questions([question], [put.text(question)], ["image"], lambda names, size: [[row]], decode, put.max_new_tokens)
    return next(iter(model.answers(asked, (), Microbatching())))[0].text


if __name__ == "__main__":
    print(answer(Path(sys.argv[1]).read_bytes(), sys.argv[2]))
