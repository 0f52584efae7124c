"""What other programs read of an answer to a lettered question: published parsers in our own words, faults included.

They explain published figures; no result of this project rests on them (see `vqa_strict` for a careful reader). Needs the standard
library only.
"""

from collections.abc import Callable, Mapping

from . import box, evalscope, lmms_eval, medevalkit, mmmu, mmmu_pro, omnimedvqa, pmc_vqa, vlmevalkit
from .reading import Reading as Reading

PARSERS: Mapping[str, Callable[[str, Mapping[str, str]], Reading]] = {
    "box": box.read,
    "mmmu": mmmu.read,
    "mmmu-pro": mmmu_pro.read,
    "lmms-eval": lmms_eval.read,
    "vlmevalkit": vlmevalkit.read,
    "evalscope": evalscope.read,
    "medevalkit": medevalkit.read,
    "pmc-vqa": pmc_vqa.read,
    "omnimedvqa": omnimedvqa.read,
}
"""Name -> `read(answer, options)`, where `options` maps letters, "A" first, to texts."""
