"""The report's style sheet: light and dark by the reader's setting or the button, one column on a phone, ink on paper.

What needs the page's script (map tools, sorting arrows, copy buttons) is hidden where scripts do not run.
"""

CSS = """
:root{color-scheme:light;--bg:#fbfaf8;--card:#ffffff;--ink:#1c1f24;--soft:#59616d;--line:#dcd9d3;--accent:#0b5cad;
  --good:#116b43;--goodbg:#e0f2e8;--warn:#7a4d00;--warnbg:#fbeccd;--bad:#a3182c;--badbg:#fbe1e3;
  --shadow:0 1px 2px #0000000f;--s0:#0072b2;--s1:#c84e00;--s2:#00805c;--s3:#a8447f;--s4:#8a6100;--s5:#2b83c6;
  --s6:#6b4fa0;--s7:#5b5b5b}
:root[data-theme=dark]{color-scheme:dark;--bg:#14161a;--card:#1d2026;--ink:#e8e6e1;--soft:#a3abb6;--line:#363b44;
  --accent:#7cb8f5;--good:#7fd3a5;--goodbg:#173326;--warn:#f0c069;--warnbg:#3a2d10;--bad:#ff9aa4;--badbg:#41191f;
  --shadow:none;--s0:#56b4e9;--s1:#ff9b57;--s2:#3dcf9f;--s3:#e79ac6;--s4:#f0c94b;--s5:#8fc7ff;--s6:#b9a2f0;
  --s7:#b5b5b5}
@media (prefers-color-scheme:dark){:root:not([data-theme=light]){color-scheme:dark;--bg:#14161a;--card:#1d2026;
  --ink:#e8e6e1;--soft:#a3abb6;--line:#363b44;--accent:#7cb8f5;--good:#7fd3a5;--goodbg:#173326;--warn:#f0c069;
  --warnbg:#3a2d10;--bad:#ff9aa4;--badbg:#41191f;--shadow:none;--s0:#56b4e9;--s1:#ff9b57;--s2:#3dcf9f;--s3:#e79ac6;
  --s4:#f0c94b;--s5:#8fc7ff;--s6:#b9a2f0;--s7:#b5b5b5}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:3.4rem;-webkit-text-size-adjust:100%}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--bg);color:var(--ink);
  font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:break-word}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px;border-radius:4px}
.skip{position:absolute;left:-9999px}
.skip:focus{left:.5rem;top:.5rem;background:var(--card);padding:.5rem 1rem;z-index:9}
nav{position:sticky;top:0;z-index:5;background:var(--bg);border-bottom:1px solid var(--line)}
nav .bar{max-width:1240px;margin:auto;padding:.45rem 1rem;display:flex;gap:.9rem;align-items:center}
nav .links{display:flex;gap:.25rem .9rem;flex:1;min-width:0;overflow-x:auto;white-space:nowrap;padding-right:2rem;
  mask-image:linear-gradient(90deg,#000 calc(100% - 2rem),#0000)}
nav a{color:var(--soft);text-decoration:none;font-size:.9rem;padding:.2rem 0}
nav a:hover{color:var(--accent)}
main,header{max-width:1240px;margin:auto;padding:0 1rem}
header{padding-top:1.6rem}
h1{font-size:clamp(1.5rem,4.5vw,2.2rem);line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.25rem;margin:2.2rem 0 .8rem;padding-top:.2rem}
h3{font-size:1rem;margin:0 0 .4rem}
p{margin:.3rem 0 .8rem;max-width:72ch}
.soft,figcaption,caption{color:var(--soft);font-size:.9rem}
a{color:var(--accent)}
.banner{background:var(--warnbg);color:var(--warn);border-radius:8px;padding:.6rem .9rem;margin:.8rem 0;
  font-weight:600}
button{font:inherit;font-size:.85rem;color:var(--ink);background:var(--card);border:1px solid var(--line);
  border-radius:6px;padding:.25rem .6rem;cursor:pointer;min-height:2rem}
button:hover{border-color:var(--accent)}
#theme{flex:none}
.grid{display:grid;gap:.9rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,240px),1fr))}
.wide{grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem .95rem;
  box-shadow:var(--shadow);min-width:0;margin:0}
.card+.card.solo,.solo{margin-bottom:.9rem}
.headline .name{color:var(--soft);font-size:.9rem}
.headline .value{font-size:1.9rem;font-weight:650;line-height:1.15;font-variant-numeric:tabular-nums}
.headline .sub{font-size:.85rem;color:var(--soft);font-variant-numeric:tabular-nums}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:12px;font-family:inherit}
@media (max-width:640px){svg text{font-size:16px}}
svg .axis{stroke:var(--line);stroke-width:1}
svg .gridline{stroke:var(--line);stroke-width:.7;stroke-dasharray:2 4}
svg .curve{fill:none;stroke-width:2;stroke-linejoin:round}
svg .band{opacity:.18;stroke:none}
svg .interval{stroke:var(--s0);stroke-width:3}
svg .dot{fill:var(--s0)}
svg .cursor{stroke:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:.15rem .9rem;font-size:.85rem;margin:.35rem 0 0;padding:0;list-style:none}
.legend i{display:inline-block;width:.85em;height:.85em;border-radius:3px;margin-right:.35em;vertical-align:-.08em}
.legend button{border:0;background:none;padding:.15rem .2rem;min-height:1.8rem}
.legend button[aria-pressed=false]{opacity:.4;text-decoration:line-through}
.scroll td:first-child{min-width:6.5rem}
.scroll{overflow-x:auto;max-width:100%}
.more{color:var(--soft);font-size:.82rem;text-align:right;max-width:none;margin:0 0 .2rem}
table{border-collapse:collapse;font-size:.9rem;width:100%}
caption{text-align:left;padding:.1rem 0 .4rem}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td.num,th.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th button{border:0;background:none;padding:0;font-weight:650;min-height:0}
th button:after{content:" \\2195";color:var(--soft)}
th[aria-sort=ascending] button:after{content:" \\2191"}
th[aria-sort=descending] button:after{content:" \\2193"}
td.best{font-weight:700}
td.spread{white-space:nowrap;font-variant-numeric:tabular-nums}
.chip{display:inline-block;border-radius:99px;padding:.05rem .6rem;font-size:.82rem;font-weight:600;
  white-space:nowrap}
.good{background:var(--goodbg);color:var(--good)}
.warn{background:var(--warnbg);color:var(--warn)}
.bad{background:var(--badbg);color:var(--bad)}
.neutral{background:var(--line);color:var(--ink)}
pre{background:var(--bg);border:1px solid var(--line);border-radius:8px;padding:.7rem;overflow-x:auto;
  font-size:.84rem;margin:0;white-space:pre}
.code{position:relative}
.code button{position:absolute;top:.4rem;right:.4rem}
details{margin:.4rem 0}
summary{cursor:pointer;font-weight:600;padding:.2rem 0}
.map{position:relative}
.map canvas{width:100%;height:min(70vh,460px);display:block;border-radius:8px;touch-action:pan-y;
  background:var(--card)}
.tools{display:flex;gap:.5rem;flex-wrap:wrap;align-items:center;margin-bottom:.4rem}
input[type=search]{font:inherit;font-size:.9rem;padding:.3rem .55rem;border:1px solid var(--line);border-radius:6px;
  background:var(--card);color:var(--ink);min-width:0;width:14rem;max-width:100%}
#tip{position:fixed;pointer-events:none;z-index:8;background:var(--ink);color:var(--bg);font-size:.82rem;
  padding:.3rem .55rem;border-radius:6px;max-width:min(80vw,22rem);white-space:pre-line;display:none}
.row{display:grid;grid-template-columns:minmax(9rem,13rem) 1fr;gap:.8rem;align-items:start;margin-bottom:.9rem}
@media (max-width:640px){.row{grid-template-columns:1fr}.row .query{max-width:16rem}}
.row>div{min-width:0}
.results{display:grid;gap:.8rem .7rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,max(8.6rem,
  min(12rem,(100% - var(--n)*.7rem)/var(--n)))),1fr))}
.item{margin:0;min-width:0}
.item button.zoom{border:2px solid var(--line);padding:0;background:#fff;width:100%;display:block;border-radius:6px;
  overflow:hidden}
.item.right button.zoom{border-color:var(--good)}
.item.query button.zoom{border-color:var(--accent)}
.item img{width:100%;height:auto;display:block;max-height:32rem;object-fit:contain;background:#fff}
:root[data-theme=dark] img.drawing{filter:invert(.88) hue-rotate(180deg)}
@media (prefers-color-scheme:dark){:root:not([data-theme=light]) img.drawing{filter:invert(.88) hue-rotate(180deg)}}
.item audio{width:100%;height:34px;margin-top:.3rem}
.item figcaption,.item .soft{font-size:.82rem;line-height:1.4}
.item figcaption{margin-top:.25rem}
dialog{border:1px solid var(--line);border-radius:10px;background:var(--card);color:var(--ink);max-width:94vw}
dialog img{max-width:88vw;max-height:78vh;display:block;margin-bottom:.6rem;background:#fff}
@media (max-width:640px){table{font-size:.82rem}th,td{padding:.35rem .3rem}
  .scroll td:first-child{min-width:0}th:not([aria-sort]) button:after{content:none}
  .code button{position:static;display:block;margin:0 0 .4rem auto}}
@media print{:root,:root[data-theme=dark],:root:not([data-theme=light]){color-scheme:light;--bg:#fff;--card:#fff;
  --ink:#000;--soft:#444;--line:#bbb;--accent:#0b5cad;--good:#116b43;--warn:#7a4d00;--bad:#a3182c;
  --goodbg:#fff;--warnbg:#fff;--badbg:#fff}.map canvas{height:auto}
  nav,.tools,.more,.code button,#tip{display:none}th button:after{content:none}img.drawing{filter:none!important}
  .scroll,pre{overflow:visible}pre{white-space:pre-wrap}.card,.row,figure{break-inside:avoid}h2,h3{break-after:avoid}}
footer{max-width:1240px;margin:2.5rem auto 1.5rem;padding:0 1rem;color:var(--soft);font-size:.85rem}
"""

#: Where scripts do not run: what would do nothing is hidden.
UNSCRIPTED = "#theme,.tools,.map canvas,.code button{display:none}th button:after{content:none}"
