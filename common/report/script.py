"""The report's own scripts: theme, tooltips on charts and maps, sorting, zoom, copy. Nothing comes from elsewhere."""

JS = r"""
(() => {
const $ = (s, e = document) => [...e.querySelectorAll(s)], root = document.documentElement;
const tip = document.getElementById('tip');
const showTip = (text, x, y) => { tip.textContent = text; tip.style.display = 'block';
  const w = tip.offsetWidth, h = tip.offsetHeight;
  tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - w - 4)) + 'px';
  tip.style.top = (y + 16 + h > innerHeight ? y - h - 10 : y + 14) + 'px'; };
const hideTip = () => { tip.style.display = 'none'; };
const redraw = [];

const themeButton = document.getElementById('theme');
const dark = () => root.dataset.theme ? root.dataset.theme === 'dark'
  : matchMedia('(prefers-color-scheme:dark)').matches;
const nameTheme = () => { themeButton.textContent = dark() ? 'Light' : 'Dark';
  themeButton.setAttribute('aria-label', 'Switch to ' + (dark() ? 'light' : 'dark') + ' colours'); };
try { const saved = localStorage.getItem('report-theme'); if (saved) root.dataset.theme = saved; } catch (e) {}
const asked = new URLSearchParams(location.search).get('theme');
if (asked === 'dark' || asked === 'light') root.dataset.theme = asked;
themeButton.onclick = () => { root.dataset.theme = dark() ? 'light' : 'dark';
  try { localStorage.setItem('report-theme', root.dataset.theme); } catch (e) {} nameTheme();
    redraw.forEach(f => f()); };
matchMedia('(prefers-color-scheme:dark)').addEventListener('change', () => { nameTheme(); redraw.forEach(f => f());
  });
nameTheme();

$('svg[data-chart]').forEach(svg => { const c = JSON.parse(svg.dataset.chart), line = svg.querySelector('.cursor');
  let at = -1;
  const px = x => c.left + ((c.log ? Math.log10(x) : x) - c.x0) / (c.x1 - c.x0) * c.width;
  const show = (i, cx, cy) => { at = i; const X = px(c.x[i]); line.setAttribute('x1', X); line.setAttribute('x2', X);
    line.style.display = ''; const b = svg.getBoundingClientRect();
    const rows = c.series.filter(s => s.y[i] !== null).map(s => s.name + ': ' + Number(s.y[i].toPrecision(4)));
    showTip(c.xlabel + ' ' + Number(c.x[i].toPrecision(6)) + '\n' + rows.join('\n'),
      cx === undefined ? b.left + X / c.total * b.width : cx, cy === undefined ? b.top + 20 : cy); };
  svg.addEventListener('pointermove', e => { const b = svg.getBoundingClientRect();
    const x = (e.clientX - b.left) / b.width * c.total; let best = 0;
    c.x.forEach((v, i) => { if (Math.abs(px(v) - x) < Math.abs(px(c.x[best]) - x)) best = i; });
      show(best, e.clientX, e.clientY); });
  const off = () => { hideTip(); line.style.display = 'none'; at = -1; };
  svg.addEventListener('pointerleave', off); svg.addEventListener('blur', off);
  svg.addEventListener('keydown', e => { const d = {ArrowRight: 1, ArrowLeft: -1}[e.key]; if (!d) return;
    e.preventDefault(); show(Math.max(0, Math.min(c.x.length - 1, at < 0 ? 0 : at + d))); }); });

$('.map').forEach(box => { const data = JSON.parse(box.querySelector('script').textContent);
  const canvas = box.querySelector('canvas'), ctx = canvas.getContext('2d'), find = box.querySelector('input');
  const live = box.querySelector('[aria-live]');
  const off = new Set(); let at = -1, query = '', P = [];
  const draw = () => { const r = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
    canvas.width = w * r; canvas.height = h * r; ctx.setTransform(r, 0, 0, r, 0, 0); ctx.clearRect(0, 0, w, h);
    const css = getComputedStyle(root), colour = [...Array(8).keys()].map(i => css.getPropertyValue('--s' + i));
    const size = Math.max(2, Math.min(5, 90 / Math.sqrt(data.x.length)));
    P = data.x.map((x, i) => [14 + x * (w - 28), 14 + (1 - data.y[i]) * (h - 28)]);
    if (data.links) { ctx.strokeStyle = css.getPropertyValue('--line'); ctx.lineWidth = .8; ctx.beginPath();
      data.links.forEach(([a, b]) => { if (off.has(data.c[a]) || off.has(data.c[b])) return;
        ctx.moveTo(...P[a]); ctx.lineTo(...P[b]); }); ctx.stroke(); }
    P.forEach(([x, y], i) => { if (off.has(data.c[i])) return;
      const hit = !query || data.t[i].toLowerCase().includes(query);
      ctx.globalAlpha = hit ? .8 : .1; ctx.fillStyle = colour[data.c[i] % 8]; ctx.beginPath();
      if (data.c[i] >= 8) ctx.rect(x - size, y - size, 2 * size, 2 * size);
      else ctx.arc(x, y, query && hit ? size * 1.5 : size, 0, 7); ctx.fill(); });
    ctx.globalAlpha = 1; if (at >= 0) { ctx.lineWidth = 2; ctx.strokeStyle = css.getPropertyValue('--ink');
      ctx.beginPath();
      ctx.arc(P[at][0], P[at][1], size + 4, 0, 7); ctx.stroke(); } };
  const pick = (i, x, y) => { at = i; draw(); if (i < 0) return hideTip(); const b = canvas.getBoundingClientRect();
    const text = data.names[data.c[i]] + '\n' + data.t[i]; live.textContent = text;
    showTip(text, x === undefined ? b.left + P[i][0] : x, y === undefined ? b.top + P[i][1] : y); };
  canvas.addEventListener('pointermove', e => { const b = canvas.getBoundingClientRect(); let best = -1, d = 400;
    P.forEach(([x, y], i) => { if (off.has(data.c[i])) return;
      const q = (x - e.clientX + b.left) ** 2 + (y - e.clientY + b.top) ** 2;
      if (q < d) { d = q; best = i; } }); if (best !== at || best >= 0) pick(best, e.clientX, e.clientY); });
  canvas.addEventListener('pointerleave', () => pick(-1)); canvas.addEventListener('blur', () => pick(-1));
  canvas.addEventListener('keydown', e => { const v = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1],
    ArrowDown: [0, 1]}[e.key]; if (!v) return; e.preventDefault();
    if (at < 0) return pick(P.findIndex((_, i) => !off.has(data.c[i])));
    let best = -1, d = Infinity; P.forEach(([x, y], i) => { if (i === at || off.has(data.c[i])) return;
      const dx = x - P[at][0], dy = y - P[at][1], along = dx * v[0] + dy * v[1],
        across = Math.abs(dx * v[1]) + Math.abs(dy * v[0]);
      if (along <= 0 || across > along * 1.5) return; const q = along + 2 * across; if (q < d) { d = q; best = i;
        } });
    if (best >= 0) pick(best); });
  find.addEventListener('input', () => { query = find.value.trim().toLowerCase(); draw(); });
  $('.legend button', box).forEach(b => b.onclick = () => { const c = +b.dataset.c;
    off.has(c) ? off.delete(c) : off.add(c);
    b.setAttribute('aria-pressed', !off.has(c)); at = -1; draw(); });
  new ResizeObserver(draw).observe(canvas); redraw.push(draw); draw(); });

$('th button').forEach(b => b.onclick = () => { const th = b.parentElement, body = th.closest('table').tBodies[0];
  const i = th.cellIndex, up = th.getAttribute('aria-sort') !== 'ascending';
  $('th', th.parentElement).forEach(t => t.removeAttribute('aria-sort'));
  th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const key = r => { const t = r.cells[i].dataset.v ?? r.cells[i].textContent;
    return t !== '' && !isNaN(t) ? +t : t; };
  [...body.rows].sort((a, c) => { const x = key(a), y = key(c);
    const order = typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y));
    return up ? order : -order; })
    .forEach(r => body.append(r)); });

const box = document.getElementById('zoom');
$('button.zoom').forEach(b => b.onclick = () => { const i = b.querySelector('img');
  box.querySelector('img').src = i.src; box.querySelector('img').alt = i.alt; box.showModal(); });
box.querySelector('button').onclick = () => box.close();
box.onclick = e => { if (e.target === box) box.close(); };

$('.code button').forEach(b => b.onclick = () => { const text = b.parentElement.querySelector('pre').textContent;
  const done = () => { b.textContent = 'Copied'; setTimeout(() => { b.textContent = 'Copy'; }, 1500); };
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => {}); });
$('.scroll').forEach(box => { const hint = document.createElement('p');
  hint.className = 'more'; hint.textContent = 'scroll \u2192'; hint.setAttribute('aria-hidden', 'true');
  const measure = () => { hint.hidden = box.scrollWidth <= box.clientWidth; };
  box.before(hint);
  new ResizeObserver(measure).observe(box); measure(); });
$('audio').forEach(a => a.addEventListener('play', () => $('audio').forEach(o => { if (o !== a) o.pause(); })));
root.dataset.ready = 'yes';
})();
"""
