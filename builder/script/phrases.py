"""Phrases that are often in builder/embedded/: scripts carry a byte for each (builder/script/machinery.py).

Found by trying some 30,000 changes of a first choice, by the size of what is compressed: 11 % less than without. Any
phrases are right, up to 128 of ASCII characters, also where builder/embedded/ has changed since.
"""

_TEXT = """\
return | if |patch|NamedTuple|for |path|promises|url| or |not |number|builder.embedded|", "|\ndef |parent|process|\
changed|version|except |files|missing|change| else |None|ing|cache|from |python|source| and |wanted|one|row|\
__future__ |place|join|sorted(|any(|partition|environ|variable|line|index|builder|plan|annotations|ch|content|top|\
part|def |ode|len(|has|dir|table|last|inside|on|drydock|package|folder|before| = | in |error|list|info|uv|ent|\
StageError|er|str|self|.append(|an|tr|new|promise|read_bytes(|.items()|prefix|value|re|com|key|copied|is |file|\
install|at|os.|:\n  |first|in|env|for|):\n |work|descriptor|)\n |wheel|ap|found|import |FileNotFoundError|est|\
.startswith(|if|.get(|no|frame|\n |text|tools|size|th|Error|, |.split(|name|\nclass |written|True|raise|system|site|\
se"""

PHRASES = _TEXT.split("|")
