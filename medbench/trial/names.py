"""What others call the columns that we read."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import takewhile
from string import ascii_lowercase

from medbench.datasets.layouts import table

TRACKED = False  # what is proposed here reaches jobs as registry entries
ALIKE = {
    "image": (
        *table.OTHER_NAMES["image"],
        "images",
        "filename",
        "image_name",
        "image_id",
        "picture",
        "photo",
        "scan",
        "dicom",
        "bild",
        "bilddatei",
        "bildname",
        "dateiname",
        "datei",
        "pfad",
        "aufnahme",
        "fichier",
        "nom_fichier",
        "nom_du_fichier",
        "chemin",
        "cliche",
        "imagen",
        "archivo",
        "immagine",
    ),
    "label": (
        *table.OTHER_NAMES["label"],
        "labels",
        "diagnosis",
        "target",
        "finding",
        "category",
        "disease",
        "dx",
        "y",
        "ground_truth",
        "diagnose",
        "befund",
        "klasse",
        "kategorie",
        "diagnostic",
        "classe",
        "etiquette",
        "categorie",
        "diagnostico",
        "diagnosi",
    ),
    "question": ("prompt", "query", "frage", "pregunta", "domanda"),
    "answer": ("reference", "response", "antwort", "reponse", "respuesta", "risposta"),
    "group": (
        *table.OTHER_NAMES["group"],
        "case",
        "case_id",
        "study",
        "lesion_id",
        "mrn",
        "patientennummer",
        "patienten_id",
        "patientenid",
        "fall",
        "fallnummer",
        "id_patient",
        "numero_patient",
        "identifiant_patient",
        "sujet",
        "dossier",
        "paciente",
        "paziente",
    ),
    "split": (*table.OTHER_NAMES["split"], "fold", "set", "aufteilung", "teilmenge", "ensemble", "jeu"),
    "answer_type": ("type", "question_type", "antworttyp", "fragetyp", "type_reponse", "type_question"),
}
"""Our names of columns -> what others call them."""
CHOICE = re.compile(r"(?:(?P<word>option|choice|answer|antwort|reponse)s?)?_?(?P<mark>[a-z]|\d{1,2})|options?|choices?")
"""Columns of the choices of a question."""


def plain(column: str) -> str:
    """Lower case, words joined by underscores, letters without accents."""
    letters = "".join(letter for letter in unicodedata.normalize("NFKD", column) if not unicodedata.combining(letter))
    return "_".join(re.sub(r"([a-z])([A-Z])", r"\1 \2", letters).lower().replace("-", " ").replace("_", " ").split())


def called_like(header: Sequence[str], ours: str, chosen: Mapping[str, str]) -> list[str]:
    """The columns that are called like ours and not chosen yet, the most usual name first."""
    columns = {plain(column): column for column in reversed(header) if column not in chosen.values()}
    return [columns[name] for name in dict.fromkeys(map(plain, (ours, *ALIKE[ours]))) if name in columns]


def choice_columns(names: Sequence[str]) -> list[str]:
    """Columns of two choices or more, in their order; of letters without a word, those that follow one another from A."""
    found = {name: match for name in names if (match := CHOICE.fullmatch(plain(name)))}
    bare = {match["mark"] for match in found.values() if not match["word"]}
    following = {*takewhile(bare.__contains__, ascii_lowercase)}
    kept = [name for name, match in found.items() if match["word"] or match["mark"] in following or not (match["mark"] or "").isalpha()]
    return kept if len(kept) > 1 else []
