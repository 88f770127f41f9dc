'use strict';
// Colours of Okabe and Ito, which the colour-blind can tell apart; curves differ in their dashes, too, as in print.
const COLORS = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#d55e00', '#56b4e9'], DASHES = ['', '7 3', '2 2', '9 2 2 2'];
const styleOf = i => ({ stroke: COLORS[i % 6], 'stroke-dasharray': DASHES[(i + Math.floor(i / 12)) % 4], 'stroke-width': 1.5, fill: 'none' });
const [WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN] = [480, 280, 58, 34, 22];

function node(name, attributes, parent, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function element(name, parent, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  parent.append(made);
  return made;
}

// Round values that cover a range, in steps of 1, 2 or 5.
function ticks(low, high) {
  const rough = (high - low || 1) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(k => k * power).find(k => k >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  return found;
}

const short = value => {
  const rounded = Number(value.toPrecision(5)), size = Math.abs(rounded);
  return size && (size >= 1e6 || size < 1e-4) ? rounded.toExponential().replace('+', '') : String(rounded);
};

// Draw points by series; labels of points are shown beside the mouse.
function draw(figure, data, joined) {
  figure.querySelectorAll(':scope > svg').forEach(old => old.remove());
  const shown = data.series.filter(series => !series.hidden), all = shown.flatMap(series => series.points);
  if (!all.length) return;
  const range = i => {
    const values = all.map(point => point[i]), low = Math.min(...values), high = Math.max(...values);
    const pad = (high - low || Math.abs(high) || 1) * 0.04;
    return [low - pad, high + pad];
  };
  const [[x0, x1], [y0, y1]] = [range(0), range(1)];
  const px = x => LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - MARGIN);
  const py = y => HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - BOTTOM - MARGIN);
  const svg = node('svg', { width: WIDTH, height: HEIGHT, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': data.title });
  figure.prepend(svg);
  node('text', { x: LEFT, y: 14, 'font-weight': 'bold' }, svg, data.title);
  for (const x of ticks(x0, x1)) {
    node('line', { x1: px(x), x2: px(x), y1: MARGIN, y2: HEIGHT - BOTTOM, class: 'axis' }, svg);
    node('text', { x: px(x), y: HEIGHT - BOTTOM + 14, 'text-anchor': 'middle' }, svg, short(x));
  }
  for (const y of ticks(y0, y1)) {
    node('line', { x1: LEFT, x2: WIDTH - MARGIN, y1: py(y), y2: py(y), class: 'axis' }, svg);
    node('text', { x: LEFT - 4, y: py(y) + 4, 'text-anchor': 'end' }, svg, short(y));
  }
  node('text', { x: WIDTH - MARGIN, y: HEIGHT - 4, 'text-anchor': 'end' }, svg, data.xlabel);
  shown.forEach(series => {
    const style = styleOf(data.series.indexOf(series));
    const places = series.points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`);
    if (joined && places.length > 1) node('polyline', { points: places.join(' '), ...style }, svg);
    if (!joined || places.length < 30) series.points.forEach(([x, y]) => node('circle', { cx: px(x), cy: py(y), r: 2.5, fill: style.stroke }, svg));
  });
  const mark = node('circle', { r: 4, fill: 'none', stroke: 'currentColor', visibility: 'hidden' }, svg);
  const tip = node('text', { y: HEIGHT - 4, x: LEFT, visibility: 'hidden' }, svg);
  svg.addEventListener('mousemove', event => {
    const box = svg.getBoundingClientRect(), scale = WIDTH / box.width;
    const [mx, my] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let best = null;
    for (const series of shown) for (const point of series.points) {
      const far = (px(point[0]) - mx) ** 2 + (py(point[1]) - my) ** 2;
      if (!best || far < best.far) best = { far, point, series };
    }
    const [x, y, label] = best.point;
    mark.setAttribute('cx', px(x)); mark.setAttribute('cy', py(y));
    tip.textContent = `${label || best.series.name}: ${short(x)}, ${short(y)}`;
    for (const part of [mark, tip]) part.setAttribute('visibility', 'visible');
  });
  svg.addEventListener('mouseleave', () => { for (const part of [mark, tip]) part.setAttribute('visibility', 'hidden'); });
}

function legend(figure, data, joined) {
  if (data.series.length < 2) return;
  const box = element('div', figure, undefined, 'legend');
  data.series.forEach((series, i) => {
    const label = element('label', box);
    node('line', { x1: 0, x2: 24, y1: 5, y2: 5, ...styleOf(i) }, node('svg', { width: 28, height: 10 }, label));
    label.append(series.name);
    label.tabIndex = 0;
    const toggle = () => { series.hidden = !series.hidden; label.classList.toggle('off'); draw(figure, data, joined); };
    label.addEventListener('click', toggle);
    label.addEventListener('keydown', event => { if (event.key === 'Enter') toggle(); });
  });
}

for (const figure of document.querySelectorAll('figure.chart')) {
  const data = JSON.parse(figure.querySelector('script').textContent);
  draw(figure, data, true);
  legend(figure, data, true);
}

const cellsOf = row => [...row.children].map(cell => cell.textContent);
const numberOf = text => /^-?[\d.,]+(e[+-]?\d+)?/i.test(text) ? parseFloat(text.replaceAll(',', '')) : NaN;

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, i) => {
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute('aria-sort') === 'ascending';
      heads.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const order = (a, b) => {
        const [x, y] = [cellsOf(a)[i], cellsOf(b)[i]], [m, n] = [numberOf(x), numberOf(y)];
        if (isNaN(m) || isNaN(n)) return isNaN(m) && isNaN(n) ? (down ? y.localeCompare(x) : x.localeCompare(y)) : isNaN(m) - isNaN(n);
        return down ? n - m : m - n;
      };
      body.append(...[...body.rows].sort(order));
    };
    head.addEventListener('click', sort);
    head.addEventListener('keydown', event => { if (event.key === 'Enter') sort(); });
  });
}

// A chart of any two columns of numbers.
function scatter(table) {
  const names = cellsOf(table.tHead.rows[0]), rows = [...table.tBodies[0].rows].map(cellsOf);
  const numeric = names.map((_, i) => i).filter(i => new Set(rows.map(row => numberOf(row[i])).filter(x => !isNaN(x))).size > 1);
  if (numeric.length < 2 || rows.length < 3) return;
  const figure = document.createElement('figure');
  figure.className = 'chart';
  table.parentNode.after(figure);
  const box = element('div', figure, undefined, 'choice'), first = [...numeric.filter(i => names[i] !== 'seed'), ...numeric];
  const place = name => numeric.find(i => names[i] === name), wanted = [place('FLOP'), place('linear') ?? place('loss')];
  const choices = ['x: ', ' y: '].map((text, axis) => {
    const label = element('label', box, text), choice = element('select', label);
    for (const i of numeric) element('option', choice, names[i]).value = i;
    choice.value = wanted[axis] ?? first[axis];
    choice.addEventListener('change', update);
    return choice;
  });
  function update() {
    const [x, y] = choices.map(choice => Number(choice.value));
    const points = rows.map(row => [numberOf(row[x]), numberOf(row[y]), row[0]]).filter(point => !isNaN(point[0]) && !isNaN(point[1]));
    draw(figure, { title: `${names[y]} over ${names[x]}`, xlabel: names[x], series: [{ name: '', points }] }, false);
  }
  update();
}

for (const table of document.querySelectorAll('table')) sortable(table);
for (const table of document.querySelectorAll('table.scatter')) scatter(table);
