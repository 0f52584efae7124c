"""What denies, hedges or declines, by language: regular expressions over lower-cased text. Needs the standard library only."""

import re
from functools import cache
from typing import NamedTuple


class Cues(NamedTuple):
    """Alternatives of one language. Where a field is empty, the language has none that is known here."""

    before: str  # denies what follows it, up to the end of its clause
    after: str = ""  # denies what stands before it
    hedge: str = ""  # neither said nor denied
    refusal: str = ""  # the model says that it cannot or will not tell
    announced: str = ""  # the answer comes next
    normal: str = ""
    abnormal: str = ""


SEEN = (
    "seen|visible|visuali[sz]ed|present|identified|evident|noted|detected|found|observed|appreciated|apparent|shown|"
    "demonstrated|there|the case|included|imaged|covered|confirmed"
)
_UNABLE = (
    r"(?:cannot|can't|can not|could not|couldn't|unable to|not able to|(?:not |im)possible (?:for me )?to|no way (?:for me )?to|"
    r"difficult to|hard to|won't|will not|not (?:allowed|permitted|qualified|authori[sz]ed|equipped|capable|in a position)(?: to| of)?|"
    r"(?:do not|don't|no) (?:have the |have )?(?:ability|capability) to|refuse to|(?:must |have to )?decline to|"
    r"(?:in|not )sufficient to|not enough to)"
)
_TELL = (
    r"(?:determin|tell|say|assess|evaluat|provid|answer|assist|help|diagnos|giv|offer|interpret|analy[sz]|view|access|process|know|judg|"
    r"comment|discern|distinguish|conclu|confirm|comply|fulfil|respond|verif|ascertain|establish|decid|infer|read|make (?:a|any|that|this)|"
    r"do (?:that|this)|be (?:sure|certain|determin|assess|evaluat|answer|diagnos|judg|establish|ascertain|interpret|"
    r"infer|conclu|known|confirm|"
    r"verif|said|told|distinguish|made)|see (?:(?:the|this|an?|any|your) )?(?:\w+ )?(?:images?|pictures?|photos?|scans?|x-?rays?)\b)"
)
CUES = {
    "en": Cues(
        before=(
            r"not|cannot|\w+n't|no|without|neither|nor|never|none of|lacks?|lacking|absence of|free (?:of|from)|"
            r"negative for|rul(?:es?|ed|ing) out|"
            r"exclud(?:es?|ed|ing)|doubt(?:s|ful)?|improbable|den(?:y|ies)|fail(?:s|ed)? to|unlikely|devoid of|nothing|"
            r"hardly|instead of|rather than|as opposed to|"
            r"resol(?:ved|ution of)|anything but|low (?:likelihood|probability|chance|suspicion) (?:of|for)|"
            r"(?:there (?:is|are)|shows?) (?:0|zero)(?![.,]?\d| or\b|[-–/])|zero (?:evidence|signs?)|unable to|"
            r"less likely|inconsistent with|argues? against"
        ),
        after=(
            rf"(?:not|\w+n't|cannot be|never|no longer)(?: \w+){{0,2}} (?:{SEEN})|none|nil|absent|unlikely|ruled out|"
            rf"excluded|(?<!cannot be )denied|missing|negative|(?:is not|isn't) one|improbable|doubtful|"
            r"(?:is|are) (?:false|untrue|incorrect)(?! (?:posi|nega)tive)|"
            r"(?:is|are|was|were) not\s*$|(?:is|are|was|were)n't\s*$|"
            r"(?<!not )(?<!n't )(?<!not yet )(?<!not fully )(?<!not completely )(?<!partially )resolved|removed|resected"
        ),
        hedge=(
            rf"(?:may|might|could(?! not))(?! (?:be )?(?:{SEEN}))|possible(?! to)|possibly|perhaps|maybe|(?:cannot|"
            rf"can't|can not|not)(?: be)?(?: \w+ly)? "
            r"(?:exclud|rul)\w*|should be considered|to be considered|depend(?:s|ing) on|whether|possibility|either|equivocal|unless|if "
            r"(?:the|there|it|you)|differential|usually|typically|commonly|often|frequently|in general|refers? to|defined as|"
            r"useful|is an? (?:\w+ )?(?:condition|disease|test|method|technique|sign)"
        ),
        refusal=(
            rf"{_UNABLE}(?: \w+){{0,4}}? {_TELL}|(?:cannot|can't|can not|could not|couldn't|not|never) {_TELL}|not "
            rf"(?:sure|certain|determinable|applicable)|unsure|need more (?:\w+ )?(?:information|context|detail|data|image|view)|"
            r"(?:no|not have|n't have) access to|"
            r"(?:is|remains?|it's) (?:un|not )(?:clear|certain|known)\b(?! lungs?)(?= whether| if|[\s.!]*$)|"
            r"undetermined|indeterminate|inconclusive|"
            r"^unclear|^uncertain|^unknown|(?:outside|beyond) (?:of )?my (?:\w+ )?(?:capabilit|scope|abilit|expertise)\w*|"
            rf"too (?:\w+ )+?to {_TELL}|not (?:trained|designed|intended|meant) to|"
            r"i (?:do not|don't) know|no idea|no comment|i can (?:certainly )?(?:help|assist)|happy to (?:help|assist)|"
            r"(?:insufficient|not enough|\w+n't enough|lack of|no)"
            r" (?:\w+ )?(?:information|detail|data|evidence to|context|quality|resolution)|^n\s?/\s?a$|^na$|"
            r"no (?:image|picture|photo|scan|attachment)s? (?:(?:is|are|was|were|been|data|files?|\w+ly) )?"
            r"(?:provided|attached|given|available|uploaded|"
            r"received|shared|included|found)|"
            r"please (?:\w+ )?(?:upload|provide|share|attach)|(?:do not|don't) (?:\w+ )?(?:see|have) (?:an?|any|the) "
            r"(?:\w+ )?(?:image|picture|attachment)"
        ),
        announced=(
            r"(?:answer|choice|option|letter|selection|conclusion|response|verdict)\b(?: to (?:your|the|this) question)?"
            r"(?: (?:is|are|would be|should be|will be|must be|to be)\s*:?|\s*(?::|=|->|→|\s-\s))"
        ),
        normal=r"normal(?:ly)?|health(?:y|ily)|unremarkable|intact|clear|within normal limits|physiologic(?:al)?|well",
        abnormal=(
            r"abnormal\w*|unhealthy|patholog\w*|diseased?|anomal\w*|(?:significant|acute|positive) findings?|"
            r"irregularit\w*|unusual|suspicious|something wrong|"
            r"anything wrong|problems?"
        ),
    ),
    "de": Cues(
        before=r"nicht|kein\w*|ohne|weder|noch|niemals|nie|nichts|frei von|ausschluss|fehlen\w*",
        after=r"nicht(?: \w+){0,2}|fehlt|fehlen|ausgeschlossen|unwahrscheinlich",
        hedge=r"vielleicht|möglich\w*|könnte\w*|eventuell|nicht auszuschließen|kann sein|unter umständen",
        refusal=(
            r"(?:kann|können|könnte)(?: \S+){0,8}? (?:nicht|kein\w*)(?: \S+){0,4}? (?:beurteil|beantwort|bestimm|sagen|"
            r"feststell|diagnos|stellen|geben|helfen|"
            r"bewert|analys|ermitt|einschätz|auswert|interpret)\w*|nicht (?:\w+ )?(?:möglich|beurteilbar|bestimmbar|in "
            r"der lage|sicher|klar)|weiß (?:es |ich )*nicht|unklar|"
            r"keine ahnung|keine (?:\w+ )?(?:aussage|diagnose|beurteilung|angabe)|nicht ausreichend|kein bild|lässt "
            r"sich(?: \S+){0,6}? nicht(?: \S+)? (?:beurteil|sagen|"
            r"bestimm|beantwort|feststell)\w*"
        ),
        announced=r"antwort(?: (?:lautet|ist))?\s*(?::|(?<=lautet)|(?<=ist))",
        normal=r"normal\w*|gesund\w*|unauffällig\w*|regelrecht\w*|intakt\w*|frei|klar|altersentsprechend\w*",
        abnormal=r"auffällig\w*|krank\w*|abnorm\w*|patholog\w*|anormal\w*|verändert\w*|veränderung\w*",
    ),
    "fr": Cues(
        before=r"pas|aucune?s?|sans|ni|jamais|rien|absence d\w*|n'est pas|ne|non",
        after=r"pas (?:\w+ )?(?:visible|présente?|vue?|observée?|identifiée?|retrouvée?)s?|absente?s?|exclue?s?|peu probable",
        hedge=r"peut-être|possible\w*|pourrai\w*|pas exclue?|pas être exclue?|éventuel\w*",
        refusal=(
            r"(?:ne (?:peux|peut|suis|saurais|puis)|impossible|incapable|pas (?:possible|en mesure|capable))(?: "
            r"\S+){0,3}? (?:de |d'|à )?(?:répond|détermin|fourni|analys|diagnosti|dire|aider|"
            r"interprét|donner|évalu|poser|savoir|voir (?:l'|d')?image|conclure|affirm|juger)\w*|je ne sais pas|"
            r"désolée?|pas sûre?|pas clair|incertain|"
            r"aucune image"
        ),
        announced=r"réponse(?: correcte)?\s*(?:est\s*:?|:)",
        normal=r"normal\w*|normaux|sain\w*|sans particularité|intact\w*|clairs?",
        abnormal=r"anorma\w*|patholog\w*|malad\w*|anomalie\w*",
    ),
    "es": Cues(
        before=r"no|ning[uú]n\w*|sin|tampoco|nunca|ni|nada|ausencia de|libre de|descarta\w*",
        after=r"ausente\w*|descartad\w*|poco probable|improbable",
        hedge=r"quizás?|tal vez|posible\w*|podría\w*|no se puede (?:descartar|excluir)|puede ser|depende",
        refusal=(
            r"no (?:puedo|podemos|podría|es posible|se puede|soy capaz de|estoy en condiciones de|sé)(?: \S+){0,3}? "
            r"?(?:detect?ermin|determin|respond|proporcion|analiz|diagnostic|decir|"
            r"ayud|evalu|interpret|saber|dar|ofrec|confirm|ver la imagen|concluir)\w*|imposible (?:determin|sab|dec|"
            r"evalu)\w*|no (?:lo )?sé|lo siento|no estoy segur\w*|no está clar\w*|incierto"
        ),
        announced=r"respuesta(?: correcta)?\s*(?:es\s*:?|:)",
        normal=r"normal\w*|san[oa]s?|intact\w*|sin hallazgos|sin alteraciones",
        abnormal=r"anormal\w*|anómal\w*|patológic\w*|enferm\w*|alteraci\w*|anomalía\w*|alterad\w*",
    ),
    "it": Cues(
        before=r"non|nessun\w*|alcun\w*|senza|né|mai|niente|nulla|assenza di",
        after=r"assent\w*|esclus\w*|improbabil\w*",
        hedge=r"forse|possibil\w*|potrebbe\w*|non si può escludere|può essere",
        refusal=(
            r"non (?:posso|possiamo|è possibile|si può|sono in grado di|so)(?: \S+){0,3}? ?(?:determin|rispond|forn|"
            r"analizz|diagnostic|dire|aiut|valut|interpret|sapere|dare)\w*|"
            r"non (?:lo )?so|mi dispiace|non è chiaro|incerto"
        ),
        announced=r"risposta(?: corretta)?\s*(?:è\s*:?|:)",
        normal=r"normal\w*|san[oaie]|intatt\w*|nella norma",
        abnormal=r"anormal\w*|patologic\w*|malat\w*|anomali\w*|alteraz\w*",
    ),
    "pt": Cues(
        before=r"não|nao|nenhum\w*|sem|nunca|nem|nada|ausência de|livre de",
        after=r"ausente\w*|descartad\w*|improvável",
        hedge=r"talvez|possível\w*|possivelmente|poderia\w*|pode ser|não se pode excluir",
        refusal=(
            r"não (?:posso|podemos|é possível|consigo|sou capaz de|sei)(?: \S+){0,3}? ?(?:determin|respond|fornec|"
            r"analis|diagnostic|dizer|ajud|avali|interpret|saber|dar)\w*|"
            r"não (?:o )?sei|desculpe|lamento|não está claro|incerto"
        ),
        announced=r"resposta(?: correta)?\s*(?:é\s*:?|:)",
        normal=r"norma(?:l|is)\w*|saudáve\w*|intact\w*|sem alterações",
        abnormal=r"anorma\w*|patológic\w*|doent\w*|alteraç\w*|anomalia\w*",
    ),
    "nl": Cues(
        before=r"niet|geen|zonder|nooit|noch|niets",
        after=r"niet(?: \w+){0,2}|afwezig|uitgesloten|onwaarschijnlijk",
        hedge=r"misschien|mogelijk\w*|zou kunnen|niet uit te sluiten",
        refusal=(
            r"kan(?: \S+){0,6}? niet(?: \S+){0,3}? (?:beoordel|beantwoord|bepal|zeggen|vaststell|helpen|geven)\w*|weet "
            r"(?:ik )?(?:het )?niet|onduidelijk|sorry"
        ),
        announced=r"antwoord(?: is)?\s*(?::|(?<=is))",
        normal=r"normal\w*|normaal|gezond\w*|onopvallend",
        abnormal=r"abnorma\w*|afwijk\w*|ziek\w*",
    ),
    "ru": Cues(
        before=r"не|нет|без|ни|отсутств\w*",
        after=r"отсутств\w*|не (?:видн\w*|выявл\w*|определя\w*|обнаруж\w*)|исключ\w*",
        hedge=r"возможн\w*|может быть|вероятно ли|не исключ\w*",
        refusal=r"не (?:могу|можем|удается|удаётся|знаю)|невозможно|затрудняюсь|неясно|извините",
        announced=r"ответ\s*:?",
        normal=r"норм\w*|здоров\w*",
        abnormal=r"патолог\w*|аномал\w*|больн\w*",
    ),
    "zh": Cues(
        before="没有|沒有|并无|並無|未见|未|无|無|不|没|非|缺乏|排除",
        after="不存在|不可见|阴性|未见|没有",
        hedge="可能|也许|或许|不排除|不能排除|无法排除|是否|疑似",
        refusal=(
            "(?:无法|不能|难以|没办法|没法|很难|不足以)[^,。,;;]{0,14}?(?:判断|确定|诊断|回答|提供|分析|查看|识别|评估|得出|做出|作出|给出|解读|看到图|区分|确认)"
            "|抱歉|对不起|不知道|不确定|不清楚|无可奉告|請咨询|请咨询"
        ),
        announced="答案(?:应该|应|就)?(?:是|为|為|[::])\\s*[::]?|回答[::]|答[::]|结论[::]|故选|应选|因此选|选择?(?=\\s*[a-ja-j])",
        normal="正常|健康|清晰|完整",
        abnormal="异常|病变|病理|不健康",
    ),
    "ja": Cues(
        before="",
        after="ない|ません|なし|無し|認めず|見られず",
        hedge="かもしれ|可能性|おそらく",
        refusal="(?:判断|回答|診断|特定|判定|お答え)(?:する)?(?:こと)?(?:が|は)?でき(?:ない|ません|かねます)|わかりません|分かりません|申し訳|不明",
        announced="(?:正解|答え|回答)(?:は|[::])\\s*[::]?",
        normal="正常|健康",
        abnormal="異常|病変",
    ),
    "ko": Cues(
        before="",
        after="없|않|아니",
        hedge="아마|가능성|수도 있",
        refusal="(?:판단|답변|진단|확인|결정)(?:할|하기) ?(?:수 ?없|어렵)|모르겠|죄송",
        announced="(?:정답|답)(?:은|[::])\\s*[::]?",
        normal="정상|건강",
        abnormal="이상|비정상",
    ),
}
SORRY = re.compile(
    r"\b(?:sorry|apologi[sz]e|as an ai|language model|not an? (?:doctor|radiologist|physician|medical professional|clinician)|"
    r"consult (?:with )?(?:an?|your)|healthcare p\w+|medical advice|seek (?:professional|medical)|"
    r"i (?:can't|cannot|can not|could not|couldn't|won't|will not)|i(?:'m| am) (?:unable|not able)|"
    r"i (?:don't|do not) have (?:enough|sufficient|adequate))\b|entschuldig|leider|"
    r"désolé|lo siento|mi dispiace|抱歉|对不起|申し訳"
)
"""Words around a refusal: no refusal by themselves, but what they stand with is one where it says nothing else."""

_UNSPACED = "zh", "ja", "ko"
_PREFIXES = "refusal", "announced"  # fields whose words go on


@cache
def pattern(field: str, codes: frozenset[str]) -> re.Pattern[str]:
    """One field of several languages as one pattern; whole words, where a language parts words and the field names whole ones."""
    end = "" if field in _PREFIXES else r"(?!\w)"
    parts = [(code, part) for code in sorted(codes & CUES.keys()) if (part := getattr(CUES[code], field))]
    return re.compile("|".join(f"(?:{part})" if code in _UNSPACED else rf"(?<!\w)(?:{part}){end}" for code, part in parts) or "(?!)")
