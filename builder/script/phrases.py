"""Phrases that are often in builder/embedded/: scripts carry a byte for each (builder/script/machinery.py).

Found by trying some 30,000 changes of a first choice, by the size of what is compressed: 11 % less than without. Any
phrases are right, up to 128 of ASCII characters, also where builder/embedded/ has changed since.
"""

_TEXT = """\
 if |patch|NamedTuple| for |plan|path|name| or |len(|overlap|not |pip|drydock|read_bytes(|out|copied|promise|\
changed|raise|missing|change|version|ing|cache|variable|source|wanted| except |files|content|:\n  |place|word|ch|\
has|partition|builder.embedded|join|builder|sorted(|install|annotations|file|part|ent|.get(|ode|package|.append(|\
inside|embedde|prefix| = |python|url| and |None|index| in |last|value|import |__future__ |line|os.|uv|True|key|\
return |number|str|ist|self|written|row|return|: |an|dir|site|info|", "|.items()|environ|before|for|is |at|error|\
one|if|on|, |size|folder|text|en|in|top|):\n |work|,\n|yield|re|\ndef |from |def |)\n |wheel|found| else |\
descriptor|est|se|FileNotFoundError|StageError|.startswith(|om|no|\n |tr|er|th|new|\nclass |Error|.split|system"""

PHRASES = _TEXT.split("|")
