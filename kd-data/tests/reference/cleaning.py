"""What ftfy makes of texts, to compare kd_data::cleaning::fix_unicode with.

    pip install ftfy
    python kd-data/tests/reference/cleaning.py > kd-data/tests/reference/cleaning.json
"""

import json
import sys

import ftfy

TEXTS = [
    "",
    "plain text, 100% of it.",
    "cafÃ© au lait",
    "â€œquotedâ€\x9d and itâ€™s â€“ well â€” fine",
    "naÃ¯ve CafÃ© MÃ¼nchen â‚¬ 5",
    "æ—¥æœ¬èªž",
    "ðŸ˜€ smiles",
    "cafÃƒÂ© twice",
    "Tom &amp; Jerry &lt;3 &quot;x&quot; &#8212; &#x27;y&#x27; caf&eacute;",
    "<b>Tom &amp; Jerry</b>",
    "“curly” ‘quotes’",
    "ﬁne ﬂuﬀy ﬃ",
    "ＡＢＣ　１２３！",
    "ｶﾀｶﾅ",
    "e\u0301 composed",
    "\x1b[36;44mcolour\x1b[0m",
    "bell\x07 and \ufeffmark",
    "already café, Köln, 日本",
]
cases = [{"text": text, "fixed": ftfy.fix_text(text)} for text in TEXTS]
json.dump({"ftfy": ftfy.__version__, "cases": cases}, sys.stdout, ensure_ascii=False, indent=1)
print()
