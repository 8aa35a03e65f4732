"""Invented names: nouns for families, and adjectives that say what the plumage shows."""

from types import MappingProxyType

NOUNS = MappingProxyType(
    {
        "finch": ("tolla", "pibbet", "corrin"),
        "warbler": ("wispet", "sillow", "fennick"),
        "wren": ("jinnet", "scrubble", "tikka"),
        "wader": ("marrel", "stipper", "pellow"),
        "heron": ("haddon", "reedmare", "lornet"),
        "duck": ("gadlin", "poddle", "murlan"),
        "dove": ("cooven", "murrow", "dallo"),
        "falcon": ("kestane", "harrin", "veskin"),
        "woodpecker": ("tapperel", "nockle", "barkin"),
        "hummingbird": ("zirrit", "thrumling", "vizzet"),
        "swallow": ("swirrel", "airlin", "skimmet"),
    }
)
"""Body plan -> nouns for its families; none is the name of a real bird."""

_FIELDS = MappingProxyType(
    {
        "back": ("backed", "dorsalis"),
        "head": ("headed", "ceps"),
        "crown": ("capped", "capilla"),
        "brow": ("browed", "superciliaris"),
        "stripe": ("masked", "lora"),
        "throat": ("throated", "gularis"),
        "breast": ("breasted", "pectoralis"),
        "band": ("banded", "torquata"),
        "belly": ("bellied", "ventris"),
        "rump": ("rumped", "uropygialis"),
        "wing": ("winged", "pennis"),
        "wing_bars": ("barred", "fasciata"),
        "tail": ("tailed", "cauda"),
        "tail_tip": ("tipped", "terminalis"),
        "bill": ("billed", "rostris"),
        "legs": ("legged", "pes"),
        "eye_ring": ("spectacled", "ocularis"),
    }
)
"""Field of the plumage -> what stands for it in English and in Latin names, after the colour."""

_LATIN_COLOURS = MappingProxyType(
    {
        "white": "albi",
        "cream": "eburni",
        "buff": "ochracei",
        "ash": "cinerei",
        "slate": "plumbei",
        "black": "nigri",
        "umber": "fusci",
        "olive": "olivacei",
        "moss": "musci",
        "chestnut": "castanei",
        "rufous": "rufi",
        "scarlet": "coccini",
        "rose": "rosei",
        "saffron": "crocei",
        "lemon": "citrini",
        "emerald": "smaragdi",
        "teal": "thalassi",
        "azure": "caerulei",
        "cobalt": "cyani",
        "violet": "violacei",
    }
)
"""Colour -> how a Latin name begins for it."""


def common_name(field: str, colour: str, noun: str) -> str:
    """The English name of a bird, as in "Saffron-capped Tolla"."""
    return f"{colour.capitalize()}-{_FIELDS[field][0]} {noun.title()}"


def scientific_name(field: str, colour: str, noun: str) -> str:
    """A name that looks scientific, as in "Tollornis croceicapilla"."""
    return f"{_stem(noun)}ornis {_LATIN_COLOURS[colour]}{_FIELDS[field][1]}"


def family_name(noun: str) -> str:
    """The name of a family, as in "Tollornithidae"."""
    return f"{_stem(noun)}ornithidae"


def _stem(noun: str) -> str:
    """The Latin stem of an English noun."""
    return noun.rstrip("aeiouw").capitalize()
