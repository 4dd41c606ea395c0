'use strict';
// Draws the report from the data beside it. No library, no request.
const D = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);
const esc = text => String(text).replace(/[&<>"]/g, c => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);
const groupColor = i => `var(--g${i % 8})`;
const policyColor = i => `var(--p${i % 8})`;
const HOUR = 3600e3;

// ------------------------------------------------------------------------------------------------------------ numbers
const num = (v, digits = 3) => {
  if (v == null) return '–';
  if (v === 0) return '0';
  const a = Math.abs(v);
  const d = a >= 100 ? 0 : a >= 10 ? Math.min(1, digits) : Math.max(0, Math.min(digits, 2 - Math.floor(Math.log10(a))));
  return v.toLocaleString('en-US', { maximumFractionDigits: d });
};
const money = v => v.toLocaleString('en-US', { minimumFractionDigits: v < 1000 ? 2 : 0, maximumFractionDigits: v < 1000 ? 2 : 0 });
const secs = s => s == null ? '∞' : s < 1 ? `${(s * 1e3).toFixed(0)} ms` : s < 120 ? `${num(s)} s` : s < 7200 ? `${num(s / 60)} min` : `${num(s / 3600)} h`;
const pct = v => v == null ? '–' : `${(Math.floor(v * 1e4) / 100).toFixed(2)} %`;
const clock = ms => {
  const sign = ms < 0 ? '−' : '', t = Math.abs(ms);
  const d = Math.floor(t / (24 * HOUR)), h = Math.floor(t / HOUR) % 24, m = Math.floor(t / 60e3) % 60;
  return `${sign}${d ? `day ${d + 1}, ` : ''}${String(h).padStart(2, '0')}:${String(m).padStart(2, '0')}`;
};

/** Times in a reason, which are the planner's, by the clock of the charts. */
const byClock = text => text.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, time => clock(Date.parse(time) - D.epoch));

// -------------------------------------------------------------------------------------------------------------- state
const drawn = D.policies.map((p, i) => ({ ...p, i })).filter(p => p.series);
// What a reader wants to see first: ours, or else the cheapest that attains and could be had, for nobody knows the future.
const real = p => p.policy !== 'optimum', cheapest = list => list.filter(p => p.attains).sort((a, b) => a.cost.total - b.cost.total)[0];
let current = drawn.find(p => p.policy === 'pomarium') || cheapest(drawn.filter(real)) || cheapest(drawn) || drawn[0];
let span = null; // [from, to] in ms, when zoomed in
const ablated = p => p.policy.startsWith('pomarium-without');
const extent = () => {
  const from = Math.min(...drawn.map(p => p.series.start));
  const to = Math.max(...drawn.map(p => p.series.start + p.series.step * p.series.rate.length));
  return [from, to];
};
const view = () => span || extent();

// ---------------------------------------------------------------------------------------------------------------- tip
const tip = $('tip');
function showTip(event, html) {
  tip.innerHTML = html;
  tip.style.opacity = 1;
  const box = tip.getBoundingClientRect(), pad = 14;
  let x = event.clientX + pad, y = event.clientY + pad;
  if (x + box.width > innerWidth - 8) x = Math.max(8, event.clientX - box.width - pad);
  if (y + box.height > innerHeight - 8) y = Math.max(8, event.clientY - box.height - pad);
  tip.style.transform = `translate(${x}px,${y}px)`;
}
const hideTip = () => { tip.style.opacity = 0; };
const row = (color, name, value) => `<tr><td>${color ? `<i style="background:${color}"></i>` : ''}${name}</td><td><b>${value}</b></td></tr>`;

// ------------------------------------------------------------------------------------------------------------- charts
const ticks = (lo, hi, n) => {
  const raw = (hi - lo) / n || 1, mag = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(f => f * mag).find(s => s >= raw) || 10 * mag;
  const out = [];
  for (let v = Math.ceil(lo / step) * step; v <= hi + step * 1e-6; v += step) out.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return out;
};
const timeTicks = (from, to, width) => {
  const steps = [5 / 60, .25, .5, 1, 2, 3, 6, 12, 24, 48, 96, 168, 336, 672].map(h => h * HOUR);
  const step = steps.find(s => (to - from) / s <= Math.max(3, width / 64)) || 1344 * HOUR;
  const out = [];
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) out.push(t);
  return out.map(t => [t, step >= 24 * HOUR ? `day ${Math.round(t / 24 / HOUR) + 1}` : (t % (24 * HOUR) === 0 && to - from > 30 * HOUR ? `day ${t / 24 / HOUR + 1}` : clock(t).replace(/^day \d+, /, ''))]);
};
const logTicks = (lo, hi) => [.001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 60, 300, 1800, 7200, 36000].filter(v => v >= lo * .999 && v <= hi * 1.001);

/** The part of a series that is in view, one point beside it included. */
function within(s, n) {
  const [from, to] = view();
  const a = Math.max(0, Math.floor((from - s.start) / s.step) - 1), b = Math.min(n, Math.ceil((to - s.start) / s.step) + 1);
  return [a, Math.max(a, b)];
}

/** A chart over time. `spec`: height, max, log, unit, layers(ctx) → svg, tip(t) → html, marks. */
function timeChart(host, spec) {
  const W = Math.max(280, host.clientWidth), H = spec.height, L = W < 500 ? 38 : 46, R = 8, T = 8, B = 22 + (spec.below || 0);
  const [from, to] = view();
  const x = t => L + (t - from) / (to - from) * (W - L - R);
  const lo = spec.log ? spec.min : 0, hi = spec.max;
  const y = spec.log
    ? v => T + (1 - (Math.log(Math.max(v, lo)) - Math.log(lo)) / (Math.log(hi) - Math.log(lo))) * (H - T - B)
    : v => T + (1 - v / (hi || 1)) * (H - T - B);
  const base = H - B;
  let svg = '';
  for (const v of spec.log ? logTicks(lo, hi) : ticks(0, hi, 4)) svg += `<line class="grid" x1="${L}" x2="${W - R}" y1="${y(v).toFixed(1)}" y2="${y(v).toFixed(1)}"/><text x="${L - 6}" y="${(y(v) + 4).toFixed(1)}" text-anchor="end">${spec.tick ? spec.tick(v) : num(v)}</text>`;
  for (const [t, text] of timeTicks(from, to, W - L - R)) svg += `<line class="grid" x1="${x(t).toFixed(1)}" x2="${x(t).toFixed(1)}" y1="${T}" y2="${base}"/><text x="${x(t).toFixed(1)}" y="${H - 6}" text-anchor="middle">${text}</text>`;
  if (D.scoredFrom > 0 && from < D.scoredFrom) svg += `<rect class="history" x="${L}" y="${T}" width="${Math.max(0, x(Math.min(D.scoredFrom, to)) - L)}" height="${base - T}"/><text x="${L + 6}" y="${T + 13}">history, not scored</text>`;
  const id = `c${Math.random().toString(36).slice(2)}`;
  svg += `<clipPath id="${id}"><rect x="${L}" y="${T - 4}" width="${W - L - R}" height="${H - T}"/></clipPath><g clip-path="url(#${id})">${spec.layers({ x, y, base, H, W, T, px: (to - from) / (W - L - R) })}</g>`;
  svg += `<line class="axis" x1="${L}" x2="${W - R}" y1="${base}" y2="${base}"/><line class="cross" y1="${T}" y2="${base}" visibility="hidden"/><rect class="sel" x="0" y="${T}" width="0" height="${base - T}"/>`;
  host.innerHTML = `<svg class="chart" viewBox="0 0 ${W} ${H}" height="${H}" role="img" aria-label="${esc(spec.label)}">${svg}</svg>`;
  const el = host.firstChild, sel = el.querySelector('.sel');
  const at = event => from + (Math.min(W - R, Math.max(L, (event.clientX - el.getBoundingClientRect().left) * W / el.clientWidth)) - L) / (W - L - R) * (to - from);
  let drag = null;
  el.onpointermove = event => {
    const t = at(event);
    // All charts over time are equally wide: one moment is at one place in each.
    crosses(x(t));
    if (drag != null) { const a = x(Math.min(drag, t)), b = x(Math.max(drag, t)); sel.setAttribute('x', a); sel.setAttribute('width', b - a); }
    const mark = event.target.dataset && event.target.dataset.d;
    showTip(event, mark != null ? decisionTip(+mark) : `<b>${clock(t)}</b>${spec.tip(t)}`);
  };
  el.onpointerleave = () => { hideTip(); drag = null; sel.setAttribute('width', 0); crosses(null); };
  el.onpointerdown = event => { if (event.pointerType === 'mouse' && event.button === 0) { drag = at(event); event.preventDefault(); } };
  el.onpointerup = event => {
    if (drag == null) return;
    const t = at(event), a = Math.min(drag, t), b = Math.max(drag, t);
    drag = null;
    if (b - a > (to - from) / 80) { span = [a, b]; charts(); } else sel.setAttribute('width', 0);
  };
  el.ondblclick = () => { span = null; charts(); };
}

const crosses = at => document.querySelectorAll('svg.chart .cross').forEach(line => {
  line.setAttribute('visibility', at == null ? 'hidden' : 'visible');
  if (at != null) { line.setAttribute('x1', at); line.setAttribute('x2', at); }
});

const lineOf = (s, values, { x, y }) => {
  const [a, b] = within(s, values.length);
  let d = '', pen = false;
  for (let i = a; i < b; i++) {
    const v = values[i];
    if (v == null) { pen = false; continue; }
    d += `${pen ? 'L' : 'M'}${x(s.start + (i + .5) * s.step).toFixed(1)} ${y(v).toFixed(1)}`;
    pen = true;
  }
  return d;
};
/** A filled band between two columns. */
const bandOf = (s, low, high, { x, y }) => {
  const [a, b] = within(s, high.length);
  let out = '', up = '', down = '';
  const flush = () => { if (up) out += `M${up.slice(1)}L${down.slice(0, -1)}Z`; up = down = ''; };
  for (let i = a; i < b; i++) {
    if (high[i] == null || low[i] == null) { flush(); continue; }
    const px = x(s.start + (i + .5) * s.step).toFixed(1);
    up += `L${px} ${y(high[i]).toFixed(1)}`;
    down = `${px} ${y(low[i]).toFixed(1)}L${down}`;
  }
  flush();
  return out;
};
const peak = (s, columns) => {
  const [a, b] = within(s, s.rate.length);
  let most = 0;
  for (const c of columns) for (let i = a; i < b; i++) if (c[i] > most) most = c[i];
  return most;
};
const value = (s, column, t) => column[Math.floor((t - s.start) / s.step)];

function decisionTip(k) {
  const s = current.series;
  const many = s.at.reduce((list, at, i) => { if (Math.abs(at - s.at[k]) < 1) list.push(i); return list; }, []);
  return many.map(i => `<b>${clock(s.start + s.at[i] * 1e3)}</b> ${esc(s.words[s.what[i]])}<div class="why">${esc(byClock(s.words[s.why[i]]))}</div>`).join('');
}
const kindOf = what => what.includes('lease ') && !what.startsWith('release') && /(^|, )lease/.test(what) ? 'lease' : /release/.test(what) ? 'release' : /start|resume/.test(what) ? 'start' : 'drain';
const kinds = { lease: ['var(--bad)', 'lease'], start: ['var(--good)', 'start'], drain: ['var(--faint)', 'drain'], release: ['var(--ink)', 'release'] };

function panel(title, legend, note) {
  const el = document.createElement('div');
  el.className = 'panel';
  el.innerHTML = `<div class="top"><h2>${title}</h2><div class="legend">${legend}</div></div>${note ? `<p class="note">${note}</p>` : ''}<div></div>`;
  return [el, el.lastChild];
}
const key = (color, text, line) => `<span><i class="${line ? `l ${line}` : ''}" style="${line ? `border-color:${color}` : `background:${color}`}"></i>${esc(text)}</span>`;

function charts() {
  const host = $('charts');
  host.innerHTML = '';
  if (!current) return;
  const s = current.series, hosts = [];
  const add = (title, legend, note, spec) => { const [el, chart] = panel(title, legend, note); host.append(el); hosts.push([chart, spec]); };
  const zoomed = span ? ` <button type="button" id="reset" style="font:inherit;font-size:12px;border:1px solid var(--line);background:none;color:var(--soft);border-radius:99px;padding:1px 10px;cursor:pointer">show everything</button>` : '';

  // Demand, and what was expected of it.
  const e = s.expected;
  add(`Demand${e ? ' and forecast' : ''}${zoomed}`,
    key('var(--ink)', 'requests/s', 'x') + (e ? key('var(--band)', 'expected: median', 'x') + key('color-mix(in srgb, var(--band) 25%, transparent)', '5 % to 95 %') : ''),
    e && current.forecastCoverage != null ? `${pct(current.forecastCoverage)} of the actual rates were within the band, of 90 % that should be.` : '', {
      label: 'requests per second over time', height: 190, max: Math.max(peak(s, e ? [s.rate, e[2]] : [s.rate]) * 1.08, .01),
      layers: c => `<path d="${bandOf(s, s.rate.map(() => 0), s.rate, c)}" fill="var(--soft)" opacity=".16"/>${e ? `<path d="${bandOf(s, e[0], e[2], c)}" fill="var(--band)" opacity=".22"/>` : ''}${e ? `<path d="${lineOf(s, e[1], c)}" fill="none" stroke="var(--band)" stroke-width="1.4"/>` : ''}<path d="${lineOf(s, s.rate, c)}" fill="none" stroke="var(--ink)" stroke-width="1" opacity=".75"/>`,
      tip: t => `<table>${row('var(--ink)', 'requests/s', num(value(s, s.rate, t)))}${e && value(s, e[1], t) != null ? row('var(--band)', 'expected', `${num(value(s, e[1], t))} (${num(value(s, e[0], t))} – ${num(value(s, e[2], t))})`) : ''}</table>`,
    });

  // Servers by group, stacked, and the decisions below.
  const stacks = [];
  s.serving.forEach((column, g) => stacks.push(column.map((v, i) => v + (g ? stacks[g - 1][i] : 0))));
  const shown = s.at.length < s.decisions ? ` ${s.at.length.toLocaleString('en-US')} of ${s.decisions.toLocaleString('en-US')} decisions are shown.` : '';
  add('Servers', D.groups.map((name, g) => key(groupColor(g), name)).join('') + key('var(--ink)', 'paid for', 'x') + '<span>decisions:</span>' + Object.values(kinds).map(([color, name]) => key(color, name)).join(''),
    `Serving, by group. Decisions are marked below; their reasons show under the pointer.${shown}`, {
      label: 'servers by group over time', height: 270, below: 26, max: Math.max(peak(s, [...stacks.slice(-1), s.paid]) * 1.06, 1),
      layers: c => {
        let out = '';
        stacks.forEach((top, g) => { out += `<path d="${bandOf(s, g ? stacks[g - 1] : top.map(() => 0), top, c)}" fill="${groupColor(g)}" opacity=".82"/>`; });
        out += `<path d="${lineOf(s, s.paid, c)}" fill="none" stroke="var(--ink)" stroke-width="1" opacity=".6"/>`;
        const [from, to] = view();
        const lanes = ['lease', 'start', 'drain', 'release'], taken = {};
        for (let i = 0; i < s.at.length; i++) {
          const t = s.start + s.at[i] * 1e3;
          if (t < from || t > to) continue;
          const kind = kindOf(s.words[s.what[i]]), lane = lanes.indexOf(kind), px = Math.round(c.x(t) / 2);
          if (taken[kind] === px) continue;
          taken[kind] = px;
          out += `<rect data-d="${i}" x="${(c.x(t) - 1.5).toFixed(1)}" y="${c.base + 3 + lane * 6}" width="3" height="5" rx="1" fill="${kinds[kind][0]}"/>`;
        }
        return out;
      },
      tip: t => `<table>${D.groups.map((name, g) => row(groupColor(g), esc(name), num(value(s, s.serving[g], t)))).join('')}${row('', 'paid for', num(value(s, s.paid, t)))}</table>${nearest(t)}`,
    });

  // Latency against the objectives.
  for (const [metric, name, columns] of [['TimeToFirstToken', 'Time to first token', [['ttft95', 'p95', 1], ['ttft50', 'median', .5]]], ['InterTokenLatency', 'Inter-token latency', [['itl95', 'p95', 1]]]]) {
    const objectives = D.objectives.map((o, i) => ({ ...o, score: current.objectives[i] })).filter(o => o.metric === metric);
    const all = columns.flatMap(([c]) => s[c].filter(v => v != null && v > 0)), limits = objectives.map(o => o.threshold);
    if (!all.length) continue;
    const low = all.reduce((a, b) => Math.min(a, b), Math.min(...limits, Infinity)), high = all.reduce((a, b) => Math.max(a, b), Math.max(...limits, 0));
    add(name, columns.map(([, text, o]) => key(`color-mix(in srgb, ${policyColor(current.i)} ${o * 100}%, var(--card))`, text, 'x')).join('') + objectives.map(o => key('var(--bad)', o.text, 'dash')).join(''),
      objectives.map(o => `${o.name}: <b class="${o.score.attainment >= o.percentile ? 'good' : 'bad'}">${pct(o.score.attainment)}</b> within ${secs(o.threshold)} over the whole trace, ${pct(o.score.worstHour)} in the worst hour; the value is ${secs(o.score.valueSeconds)}.`).join(' '), {
        label: `${name} over time`, height: 200, log: true, min: low / 1.3, max: high * 1.3, tick: secs,
        layers: c => columns.slice().reverse().map(([col, , o]) => `<path d="${lineOf(s, s[col], c)}" fill="none" stroke="${policyColor(current.i)}" stroke-width="1.3" opacity="${o}"/>`).join('') + limits.map(v => `<line class="limit" x1="0" x2="${c.W}" y1="${c.y(v)}" y2="${c.y(v)}"/>`).join(''),
        tip: t => `<table>${columns.map(([col, text]) => row(policyColor(current.i), text, value(s, s[col], t) == null ? '–' : secs(value(s, s[col], t)))).join('')}</table>`,
      });
  }

  // Cost so far, of all policies.
  add(`Cost so far, ${D.currency}`, drawn.map(p => key(policyColor(p.i), p.policy, 'x')).join(''), 'Leases and energy.', {
    label: 'cumulative cost by policy', height: 220, max: Math.max(...drawn.map(p => peak(p.series, [p.series.cost])), .01) * 1.05,
    layers: c => drawn.map(p => `<path d="${lineOf(p.series, p.series.cost, c)}" fill="none" stroke="${policyColor(p.i)}" stroke-width="${p === current ? 2.6 : 1.3}" opacity="${p === current ? 1 : .75}"/>`).join(''),
    tip: t => `<table>${drawn.map(p => [p, value(p.series, p.series.cost, t)]).filter(([, v]) => v != null).sort((a, b) => b[1] - a[1]).map(([p, v]) => row(policyColor(p.i), esc(p.policy), `${money(v)} ${D.currency}`)).join('')}</table>`,
  });
  hosts.forEach(([chart, spec]) => timeChart(chart, spec));
  if ($('reset')) $('reset').onclick = () => { span = null; charts(); };
}

/** The decision nearest in time, if it is near enough to be meant. */
function nearest(t) {
  const s = current.series, [from, to] = view();
  let best = -1, distance = (to - from) / 150;
  s.at.forEach((at, i) => { const d = Math.abs(s.start + at * 1e3 - t); if (d < distance) { distance = d; best = i; } });
  return best < 0 ? '' : `<div class="why">${decisionTip(best)}</div>`;
}

// ------------------------------------------------------------------------------------------------- cost and attainment
function compare() {
  const host = $('compare');
  host.innerHTML = '';
  if (!D.runs.length) return;
  const names = D.policies.map(p => p.policy.replace(/\+leases$/, ''));
  const colorOf = run => policyColor(names.indexOf(run.policy.replace(/\+leases$/, '')));
  const [el, chart] = panel('Cost and attainment', names.map((name, i) => key(policyColor(i), name)).join('') + key('var(--ink)', 'Pareto front', 'x'),
    'Every run of every sweep: hollow ones do not keep paid leases, as far as there is a variant that does; large ones count. Right of the line all objectives hold; lower is cheaper, and what is far costlier lies on the upper edge.');
  host.append(el);
  const W = Math.max(280, chart.clientWidth), H = 330, L = 56, R = 14, T = 12, B = 36;
  const costs = D.runs.map(r => r.cost), attaining = D.runs.filter(r => r.margin >= 0).map(r => r.cost);
  const low = Math.min(-.1, ...D.runs.map(r => Math.max(r.margin, -.25)).sort((a, b) => a - b).slice(0, 1)), high = Math.max(.02, ...D.runs.map(r => r.margin)) * 1.15;
  const top = Math.min(Math.max(...costs), (attaining.length ? Math.min(...attaining) : Math.min(...costs)) * 6) * 1.06;
  // Misses are squeezed, so that what is close to the objective can be told apart.
  const squeeze = v => v >= 0 ? v : -Math.sqrt(-v) * Math.sqrt(.05);
  const x = v => L + (squeeze(Math.max(v, low)) - squeeze(low)) / (squeeze(high) - squeeze(low)) * (W - L - R), y = v => T + (1 - Math.min(v, top) / top) * (H - T - B);
  let svg = `<rect x="${x(0)}" y="${T}" width="${W - R - x(0)}" height="${H - T - B}" fill="var(--good)" opacity=".07"/>`;
  for (const v of ticks(0, top, 5)) svg += `<line class="grid" x1="${L}" x2="${W - R}" y1="${y(v)}" y2="${y(v)}"/><text x="${L - 6}" y="${y(v) + 4}" text-anchor="end">${num(v)}</text>`;
  for (const v of [-.25, -.1, -.03, 0, .02, .04].filter(v => v >= low && v <= high)) svg += `<line class="grid" x1="${x(v)}" x2="${x(v)}" y1="${T}" y2="${H - B}"/><text x="${x(v)}" y="${H - B + 16}" text-anchor="middle">${v > 0 ? '+' : v < 0 ? '−' : ''}${Math.abs(v * 100).toFixed(0)}</text>`;
  svg += `<line class="limit" x1="${x(0)}" x2="${x(0)}" y1="${T}" y2="${H - B}" style="stroke:var(--good)"/><text x="${(L + W - R) / 2}" y="${H - 4}" text-anchor="middle">${W < 520 ? 'points above the percentile, worst objective' : 'attainment of the worst objective, in points above its percentile'}</text><text x="${L - 44}" y="${T}" >${D.currency}</text>`;
  if (D.bound != null && D.bound <= top) svg += `<line class="limit" style="stroke:var(--ink)" x1="${L}" x2="${W - R}" y1="${y(D.bound)}" y2="${y(D.bound)}"/><text x="${L + 6}" y="${y(D.bound) - 5}">bound of the schedule that knows the future</text>`;
  const front = D.runs.filter(r => r.onFront).sort((a, b) => a.cost - b.cost);
  svg += `<path d="${front.map((r, i) => `${i ? 'L' : 'M'}${x(r.margin)} ${y(r.cost)}`).join('')}" fill="none" stroke="var(--ink)" stroke-width="1.2" opacity=".55"/>`;
  const chosen = D.policies.map(p => `${p.policy} ${p.knob}`);
  D.runs.forEach((r, i) => {
    const leases = r.policy.endsWith('+leases') || !D.runs.some(o => o.policy === `${r.policy}+leases`), on = chosen.includes(`${r.policy} ${r.knob}`);
    svg += `<circle data-r="${i}" cx="${x(r.margin).toFixed(1)}" cy="${y(r.cost).toFixed(1)}" r="${on ? 7 : 4.5}" fill="${leases || on ? colorOf(r) : 'var(--card)'}" fill-opacity="${on ? 1 : .75}" stroke="${on ? 'var(--ink)' : colorOf(r)}" stroke-width="1.6"/>`;
  });
  // The names of those that count: beside, above or below, where no other name or point of those is.
  const counting = D.runs.filter(r => chosen.includes(`${r.policy} ${r.knob}`)).map(r => ({ name: r.policy, x: x(r.margin), y: y(r.cost), w: r.policy.length * 6.6 }));
  const taken = counting.map(c => [c.x - 8, c.y - 8, c.x + 8, c.y + 8]);
  for (const c of counting) {
    const places = [[c.x + 12, c.y + 4], [c.x - 12 - c.w, c.y + 4], [c.x - c.w / 2, c.y - 12], [c.x - c.w / 2, c.y + 20], [c.x + 6, c.y - 12], [c.x + 6, c.y + 20]];
    const box = ([px, py]) => [px, py - 10, px + c.w, py + 3];
    const free = p => { const b = box(p); return b[0] > L && b[2] < W - R && b[3] < H - B && taken.every(t => b[0] > t[2] || b[2] < t[0] || b[1] > t[3] || b[3] < t[1]); };
    const place = places.find(free);
    if (!place) continue;
    taken.push(box(place));
    svg += `<text class="name" x="${place[0].toFixed(1)}" y="${place[1].toFixed(1)}">${esc(c.name)}</text>`;
  }
  chart.innerHTML = `<svg class="chart" viewBox="0 0 ${W} ${H}" height="${H}" role="img" aria-label="cost and attainment of every run">${svg}</svg>`;
  chart.firstChild.onpointermove = event => {
    const i = event.target.dataset && event.target.dataset.r;
    if (i == null) return hideTip();
    const r = D.runs[+i];
    showTip(event, `<b>${esc(r.policy)}</b> at ${num(r.knob)}<table>${row('', 'cost', `${money(r.cost)} ${D.currency}`)}${row('', 'worst objective', `${r.margin >= 0 ? '+' : '−'}${Math.abs(r.margin * 100).toFixed(2)} points`)}</table>`);
  };
  chart.firstChild.onpointerleave = hideTip;
}

// -------------------------------------------------------------------------------------------------------------- words
function head() {
  const attaining = D.policies.filter(p => p.attains);
  const title = D.policies.length > 1
    ? `${D.policies.length} policies for ${D.pool}`
    : `${D.policies[0]?.policy ?? ''} for ${D.pool}`;
  $('head').innerHTML = `<h1>${esc(title)}${D.label ? `<span class="badge">${esc(D.label)}</span>` : ''}</h1>` + D.facts.filter(([k]) => k !== 'groups').map(([k, v]) => `<p class="sub">${k === 'trace' ? '' : `${k === 'pool' ? '' : `${k}: `}`}${esc(v)}</p>`).join('');
  $('remarks').innerHTML = D.remarks.map(text => `<div class="remark">${esc(text)}</div>`).join('');
  const cards = [], card = (k, v, d, cls) => cards.push(`<div class="card"><div class="k">${k}</div><div class="v ${cls || ''}">${v}</div><div class="d">${d || ''}</div></div>`);
  const p = current ?? D.policies[0];
  if (!p) return;
  card('cost', `${money(p.cost.total)} <small>${D.currency}</small>`, `leases ${money(p.cost.leases)}, energy ${money(p.cost.energy)}${p.cost.obligations ? `, owed at the end ${money(p.cost.obligations)}` : ''}`);
  if (p.compared) {
    const others = attaining.filter(o => o !== D.policies[p.i] && real(o) && !ablated(o)).sort((a, b) => a.compared.cost - b.compared.cost);
    const known = attaining.find(o => !real(o) && o !== D.policies[p.i]);
    const future = known ? `; × ${num(p.compared.cost / known.compared.cost)} of a schedule that knows the future` : '';
    if (!p.attains) card('to the others', 'misses', 'an objective does not hold', 'bad');
    else if (others.length) card('to the best of the others', `× ${num(p.compared.cost / others[0].compared.cost)}`, `${esc(others[0].policy)} costs ${money(others[0].compared.cost)} ${D.currency}${future}`, p.compared.cost <= others[0].compared.cost ? 'good' : '');
  }
  p.objectives.forEach((o, i) => card(D.objectives[i].name + ' attained', pct(o.attainment), `of ${pct(o.percentile)} wanted; worst hour ${pct(o.worstHour)}${o.worstWindow != null ? `, worst window ${pct(o.worstWindow)}` : ''}`, o.attainment >= o.percentile ? 'good' : 'bad'));
  const r = p.requests;
  card('requests', r.total.toLocaleString('en-US'), `${r.completed === r.total ? 'all completed' : `${r.completed.toLocaleString('en-US')} completed`}, ${r.cut} cut${r.neverServed ? `, ${r.neverServed.toLocaleString('en-US')} never served` : ''}${r.rejected ? `, ${r.rejected.toLocaleString('en-US')} too long` : ''}`, r.cut || r.neverServed ? 'bad' : '');
  card('servers at peak', p.servers.peak, Object.entries(p.servers.hoursByGroup).map(([g, h]) => `${esc(g)} ${num(h)} h`).join(', '));
  card('moves per day', num(p.movesPerDay), `${p.earlyReleases} leases given back early`);
  if (p.plan.gapMedian != null) card('plan gap, median', pct(p.plan.gapMedian), `largest ${pct(p.plan.gapMax)}${p.plan.msP50 != null ? `; ${num(p.plan.msP50)} ms a plan, p99 ${num(p.plan.msP99)} ms` : ''}`);
  $('cards').innerHTML = cards.join('');
}

function tabs() {
  $('tabs').innerHTML = drawn.length > 1 ? drawn.map(p => `<button type="button" role="tab" data-i="${p.i}" aria-selected="${p === current}"><i style="background:${policyColor(p.i)}"></i>${esc(p.policy)}</button>`).join('') : '';
  $('tabs').onclick = event => {
    const button = event.target.closest('button');
    if (!button) return;
    current = drawn.find(p => p.i === +button.dataset.i);
    tabs(); head(); charts(); table();
  };
}

function table() {
  const head = ['policy', ...(D.runs.length ? ['to best'] : []), 'knob', ...D.objectives.flatMap(o => [o.name, 'attained', 'worst hour']), 'leases', 'energy', `total ${D.currency}`, 'owed then', 'peak', 'moves/day', 'early'];
  const rows = D.policies.map((p, i) => `<tr class="${current && current.i === i ? 'on' : ''}"><td><i style="background:${policyColor(i)}"></i>${esc(p.policy)}</td>${D.runs.length ? `<td>${p.compared?.ratioToBest != null ? `× ${num(p.compared.ratioToBest)}` : '<span class="bad">misses</span>'}</td>` : ''}<td title="${esc(p.knobText ?? '')}">${p.knob == null ? '–' : num(p.knob)}</td>${p.objectives.map(o => `<td>${secs(o.valueSeconds)}</td><td class="${o.attainment >= o.percentile ? 'good' : 'bad'}">${pct(o.attainment)}</td><td>${pct(o.worstHour)}</td>`).join('')}<td>${money(p.cost.leases)}</td><td>${money(p.cost.energy)}</td><td>${money(p.cost.total)}</td><td>${money(p.cost.obligations)}</td><td>${p.servers.peak}</td><td>${num(p.movesPerDay)}</td><td>${p.earlyReleases}</td></tr>`).join('');
  $('table').innerHTML = `<div class="panel"><div class="top"><h2>In numbers</h2></div>${D.explanation ? `<p class="note">${esc(D.explanation)}${D.bound != null ? ` By its own model, no schedule that knows the future costs less than ${money(D.bound)} ${D.currency}.` : ''}</p>` : ''}<div class="scroll"><table class="data"><thead><tr>${head.map(h => `<th>${esc(h)}</th>`).join('')}</tr></thead><tbody>${rows}</tbody></table></div></div>`;
}

function foot() {
  const facts = [...D.facts, ['seed', D.seed], ['version', D.version]];
  $('foot').innerHTML = `<dl>${facts.map(([k, v]) => `<dt>${k}</dt><dd>${esc(v)}</dd>`).join('')}<dt>made by</dt><dd><code>${esc(D.command)}</code></dd></dl>Drag over a chart to look closer, double-click to see everything.`;
}

function all() { tabs(); head(); charts(); compare(); table(); foot(); }
$('theme').onclick = () => {
  const dark = getComputedStyle(document.documentElement).colorScheme.includes('dark');
  document.documentElement.dataset.theme = dark ? 'light' : 'dark';
};
let width = innerWidth;
addEventListener('resize', () => { if (innerWidth !== width) { width = innerWidth; charts(); compare(); } });
all();
