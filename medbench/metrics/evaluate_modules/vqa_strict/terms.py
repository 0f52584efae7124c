"""Words of questions about images: those that tell nothing, findings, organs, what excludes what. Needs the standard library only."""

import re

_EMPTY = (
    "is are was were be been being do does did can could has have had will would should may might must there this that these those "
    "it its they a an the in on at of to by for from with without within as and or any some i you we he she not no yes than if "
    "also only use used using image images picture pictures scan scans film view section slice plane photo radiograph xray x-ray "
    "ray x given above provided patient patients patient's evidence sign signs finding findings present seen see visible "
    "visualized visualised identified evident noted detected found observed appreciated show shows shown demonstrate demonstrates "
    "contain contains reveal depict indicate suggest possible suspect diagnose appear appears appearance look looks suffering "
    "suffer taken take took clearly properly obvious size shape der die das den dem ein eine einen einem eines ist sind war zu im "
    "am auf bild sehen erkennen erkennbar sichtbar vorhanden liegt vor gibt es zeigt man hier befund est-il est-elle sont-ils "
    "sont-elles y-a-t-il a-t-il a-t-on peut-on voyez-vous observe-t-on le la les l un une des du de d est sont il elle y t on voit "
    "voit-on cette cet ce radiographie présent présente s'agit-il qu que dans sur el los las una unos hay se ve observa está en "
    "esta este imagen radiografía muestra presenta existe lo gli uno c'è si vede osserva nell immagine questa presente esiste o os "
    "as um uma há vê nesta imagem"
)
EMPTY = frozenset(_EMPTY.split())
"""Words of a question that say nothing of what it claims."""
_ASKS = (
    "这张 该 此 图像 图片 影像 图中 照片 患者 病人 是否 有没有 存在 显示 可见 看到 能 可以 吗 "
    "嘛 呢 么 有 是 一张 一个 的 中 里 在 上 出现 任何 "
    "画像 この に は が の ますか ですか "
    "か 写真 あり 見られ"
)
ASKS = tuple(_ASKS.split())
"""The same in scripts without spaces."""

FINDING = re.compile(
    "effusion|mass(?:es)?\\b|lesion|fractur|pneumon|pneumo|nodul|opacit|opacif|infiltrat|edema|consolidat|ha?emorrhag|"
    "ha?ematom|bleed|tumou?r|cancer|"
    "malignan|carcinom|metasta|cysts?\\b|enlarg|dilat|thicken|collaps|atelecta|megaly|infect|inflam|abscess|stone|"
    "calculus|calculi|calcif|herni|"
    "aneurysm|infarct|ischemi|stroke|obstruct|ascites|adenopath|lymphaden|fibrosis|emphysem|swelling|swollen|tubercul|"
    "deviat|shift|stenosis|blunt|"
    "necro|ulcer|polyp|dislocat|fatty|atroph|hydroceph|hydroneph|degenerat|distend|distention|elevat|widen|cavit|"
    "\\w+itis\\b|damage|injur|increas|decreas|reduc|disease|irregular|"
    "patholog|abnormal"
)
"""Stems of what is found where something is not normal."""
ORGANS = tuple(
    re.compile(rf"\b(?:{names})")
    for names in (
        "heart|cardi[ao]", "lung|pulmonary|costophrenic|pleura", "liver|hepat", "kidney|renal|nephr",
        r"brain|cerebr|cranial|intracranial|cort(?:ex|ical)",
        r"bone|osseous|ribs?\b|cort(?:ex|ical)|skeletal", "spleen|splenic", "pancrea", "bowel|colon|intestin", "trachea", "aort",
    )
)  # fmt: skip
_RIVALS = (
    "left|left-sided; right|right-sided",
    "both|bilateral|bilaterally; only (?:on )?the (?:left|right)|left-sided|right-sided|unilateral",
    "mri|mr|magnetic resonance; ct|computed tomography|cat scan; x-ray|xray|radiograph|plain film; (?:ultra)?sonogra\\w+|ultrasound; pet",
    "axial|transverse; coronal; sagittal|saggital",
    "pa|posteroanterior|posterior-anterior|posterior anterior; ap|anteroposterior|anterior-posterior|anterior posterior; lateral",
    "t1|t1-weighted; t2|t2-weighted; flair",
    "male|man|boy; female|woman|girl",
    "benign; malignant|malignancy",
    "acute; chronic",
    "cystic; solid",
    "upper|superior; lower|inferior; middle",
    "homogen\\w+; heterogen\\w+",
    "symmetric\\w*; asymmetric\\w*",
    "midline; deviated|shifted|displaced",
    "patent; occluded|obstructed|blocked|stenosed",
    "hyper\\w+; hypo\\w+; iso(?:dense|intense)\\w*",
    "increased|higher|more|larger|bigger; decreased|lower|less|smaller",
    "brain|head|skull; chest|thorax|thoracic; abdomen|abdominal; pelvis|pelvic; spine|spinal; knee; hand|wrist; foot|ankle; neck; shoulder",
    "non-?\\s?contrast|without (?:\\w+ )?contrast|unenhanced; with (?:\\w+ )?contrast|contrast[- ]enhanced",
    "frontal; lateral",
    "sharp; blunted",
    "intact; broken|disrupted|torn|ruptured",
    "visible; obscured|hidden",
    "single|solitary|(?:only|just) (?:one|1|a single); multiple|several|many|more than (?:one|1)|numerous",
)
RIVALS = tuple(tuple(re.compile(rf"\b(?:{side.strip()})\b") for side in line.split(";")) for line in _RIVALS)
"""Of each line, what is one of these is none of the others."""
SAME = (
    (
        "cardiomegal",
        "enlarged heart|heart (?:is |appears )?(?:\\w+ )?enlarged|enlarged cardiac|cardiac enlargement|cardiac silhouette is enlarged",
    ),
    ("hemorrhag|haemorrhag|bleed", "ha?emorrhag\\w*|bleed\\w*|ha?ematoma"),
    ("tumou?r|neoplasm", "tumou?r\\w*|neoplas\\w*"),
    ("x-ray|xray|radiograph", "x-?ray|radiograph"),
    ("ct\\b|computed", "ct|computed tomography"),
    ("mri?\\b|magnetic", "mri?|magnetic resonance"),
    ("swoll|swell", "sw[eo]ll\\w+"),
    ("broken|fractur", "broken|fractur\\w*"),
    ("fluid|effusion", "fluid|effusions?"),
    ("pneumoperitoneum", "pneumoperitoneum|free air"),
    ("cancer|malignan", "cancer\\w*|malignan\\w*|carcinoma"),
)
"""Words of a question -> what says the same in an answer."""

_SPELLINGS = {"o?edema": "o?edema", "o?esophag": "o?esophag", "ha?em(?=[oa])": "ha?em", "a?emi(?=[ac])": "a?emi", "tumou?r": "tumou?r"}


def spelled(word: str) -> str:
    """A pattern of a word in British and American spelling."""
    pattern = re.escape(word)
    for either, to in _SPELLINGS.items():
        pattern = re.sub(either, to, pattern)
    return pattern
