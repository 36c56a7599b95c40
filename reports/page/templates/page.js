// Turns the data of the page into its tables, charts and pictures. Texts are written as texts, never as markup.
(function () {
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const AVERAGE = "average";
const ROWS_AT_FIRST = 50;
const CLASSES = { "▲": "beats", "▼": "loses" };

// ---- Elements and numbers

const find = (id) => document.getElementById(id);

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const known = (value) => typeof value === "number";
const shortNumber = (value) => (known(value) ? String(Number(value.toPrecision(3))) : "–");
const title = (place) => (place === AVERAGE ? "average" : data.suites[place] || place);
// Texts are rounded where the Markdown is made, of which these are the cells.
const textOf = (row, column) => (row.line[column] || ["–"])[0];
const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);
const textAt = (place) => data.texts[place] || "";

function select(label, options, onchange, chosen) {
  const box = make("select", { onchange: () => onchange(box.value) });
  for (const [value, text] of options) box.append(make("option", { value: value, selected: value === chosen }, text));
  return [make("label", {}, label, box), box];
}

function wide(...children) {
  return make("div", { class: "wide", tabindex: "0" }, ...children);
}

function table(head, lines) {
  const line = (tag, cells) =>
    make("tr", {}, cells.map((cell) => make(tag, { class: typeof cell === "string" && tag === "td" ? "long" : "text", scope: tag === "th" ? "col" : null }, cell)));
  return make("table", {}, make("thead", {}, line("th", head)), make("tbody", {}, lines.map((cells) => line("td", cells))));
}

// ---- The leaderboard

const view = { table: "", method: "", reduction: "", optimal: false, words: "", hidden: new Set(), sort: "", down: false, all: false };
const severalTables = data.tables.length > 1;

// A model's name where that tells its table from the others, else all that the table is about.
function shortName(table) {
  return data.tables.filter((other) => other.model === table.model).length === 1 ? table.model : table.heading;
}

// "cannot: it saves at most 40 %", by its first word.
const missing = (text) => make("span", { title: text }, text.split(":")[0]);

// The score, below it the drop, and what marks either.
function showScore(row, column) {
  const text = textOf(row, column);
  if (column in row.refused) return missing(textAt(row.refused[column]));
  const [, score, drop, marks] = text.match(/^(\S+)(?: \((.*?)\))?(.*)$/);
  const best = (row.line[column] || [])[1], failed = marks.includes("✗");
  const below = drop === undefined ? null : make("span", { class: failed ? "sub failed" : "sub" }, "(" + drop + ")" + (failed ? " ✗" : ""));
  return make("span", { class: best ? "best" : null }, score + marks.replace(" ✗", ""), below && " ", below);
}

function show(row, column) {
  if (column === "method") return rowButton(row);
  if (column === AVERAGE || column in data.suites) return showScore(row, column);
  const text = textOf(row, column);
  return make("span", { class: CLASSES[text[0]] || null }, text);
}

function valueOf(row, column) {
  if (column === "method") return row.name;
  if (column === AVERAGE) return row.average ? row.average[0] : null;
  if (column in data.suites) return row.cells[column] ? row.cells[column].figure[0] : null;
  return column in row.values ? row.values[column] : textOf(row, column);
}

const LOW_FIRST = ["method", "model", "worst suite", "time, of dense", "GFLOPs", "of dense", "servable in"];
const COLUMNS = data.columns.map(([id, head]) => ({ id: id, title: head, down: !LOW_FIRST.includes(id), value: (row) => valueOf(row, id), show: (row) => show(row, id) }));
if (severalTables) COLUMNS.splice(2, 0, { id: "model", title: "model", value: (row) => shortName(data.tables[row.table]), show: (row) => shortName(data.tables[row.table]) });
const slug = (column) => column.toLowerCase().replace(/[^a-z0-9]+/g, "-");

const isRefused = (row) => Object.keys(row.cells).length === 0;
const isOptimal = (row) => row.optimal.flops.includes(data.tables[row.table].places[0]);

data.rows.forEach((row, place) => {
  row.place = place;
  for (const [suite, cell] of Object.entries(row.cells)) row.cells[suite] = Object.fromEntries(data.fields.map((name, at) => [name, cell[at]]));
});

function visibleColumns() {
  return COLUMNS.filter((column) => !view.hidden.has(column.id));
}

function visibleRows() {
  const words = view.words.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = data.rows.filter((row) => {
    const text = (row.name + " " + data.tables[row.table].heading).toLowerCase();
    return (
      (view.table === "" || row.table === Number(view.table)) &&
      (view.method === "" || row.method === view.method) &&
      (view.reduction === "" || row.reduction === Number(view.reduction)) &&
      (!view.optimal || isOptimal(row)) &&
      words.every((word) => text.includes(word))
    );
  });
  const column = COLUMNS.find((one) => one.id === view.sort);
  return column ? rows.sort((one, other) => compare(column.value(one), column.value(other)) || one.place - other.place) : rows;
}

const collator = new Intl.Collator("en", { numeric: true });

// Rows without a value go last whichever way the others are sorted.
function compare(one, other) {
  const none = (value) => value === null || value === undefined;
  if (none(one) || none(other)) return none(one) - none(other);
  const order = typeof one === "string" ? collator.compare(one, other) : one - other;
  return view.down ? -order : order;
}

function drawBoard() {
  const found = visibleRows(), rows = found.filter((row) => !isRefused(row));
  drawRefused(found.filter(isRefused));
  const shown = view.all ? rows : rows.slice(0, ROWS_AT_FIRST);
  find("board").tBodies[0].replaceChildren(...shown.flatMap(bodyRow));
  find("shown").textContent = rows.length + (rows.length === 1 ? " row" : " rows") + (shown.length < rows.length ? ", the first " + shown.length + " of them below" : "");
  find("more").hidden = shown.length === rows.length;
  find("more").textContent = "Show all " + rows.length + " rows";
}

function drawColumns() {
  data.rows.forEach((row) => (row.lines = null));
  find("board").replaceChildren(make("thead", {}, make("tr", {}, visibleColumns().map(headCell))), make("tbody", {}));
  drawBoard();
}

// Rows that could not run, in a line to unfold.
function drawRefused(rows) {
  const box = find("refused"), names = [...new Set(rows.map((row) => row.name))];
  box.hidden = rows.length === 0;
  box.replaceChildren(
    make("summary", {}, rows.length + (rows.length === 1 ? " row" : " rows") + " without a result: " + names.slice(0, 4).join(", ") + (names.length > 4 ? " and more" : "")),
    make("ul", {}, rows.map((row) => make("li", {}, row.name + (severalTables ? " (" + shortName(data.tables[row.table]) + ")" : "") + ": " + refusal(row)))),
  );
}

function headCell(column) {
  const button = make("button", { type: "button", id: "sort-" + slug(column.id), onclick: () => sortBy(column) });
  column.head = make("th", { scope: "col", class: column.id === "method" ? "first" : null }, button);
  markHead(column);
  return column.head;
}

function markHead(column) {
  const sorted = view.sort === column.id;
  column.head.firstChild.textContent = column.title + (sorted ? (view.down ? " ↓" : " ↑") : "");
  column.head.setAttribute("aria-sort", sorted ? (view.down ? "descending" : "ascending") : "none");
}

function sortBy(column) {
  view.down = view.sort === column.id ? !view.down : Boolean(column.down);
  view.sort = column.id;
  visibleColumns().forEach(markHead);
  drawBoard();
}

// The line of a row, and what it is unfolded to: made when first shown, then moved, so that a large table sorts at once.
function bodyRow(row) {
  const look = { method: "first", model: "text", "worst suite": "text", "servable in": "text" };
  const cell = (column) => make(column.id === "method" ? "th" : "td", { class: look[column.id], scope: column.id === "method" ? "row" : null }, column.show(row));
  row.lines ||= [make("tr", { "data-row": row.place }, visibleColumns().map(cell))];
  return row.lines;
}

function rowButton(row) {
  const button = make("button", { type: "button", "aria-expanded": "false", onclick: () => unfold(row, button) }, textOf(row, "method"));
  return button;
}

function refusal(row) {
  const reasons = new Set(Object.values(row.refused).map(textAt));
  return [...reasons].join("; ");
}

function unfold(row, button) {
  const open = row.lines.length > 1;
  button.setAttribute("aria-expanded", String(!open));
  if (open) row.lines.pop().remove();
  else row.lines.push(make("tr", {}, make("td", { class: "unfolded", colspan: visibleColumns().length }, make("div", { class: "inside" }, details(row)))));
  row.lines[0].after(...row.lines.slice(1));
}

// ---- What is behind a row

function details(row) {
  const parts = Object.entries(row.refused).map(([suite, reason]) => make("p", {}, title(suite) + " " + textAt(reason)));
  const suites = Object.keys(row.cells);
  const head = ["suite", "score", "drop", ...data.rivals.map((rival) => "vs " + rival), "n", "verdict", "GFLOPs", "date"];
  const lines = suites.map((suite) => detailLine(row, suite, row.cells[suite]));
  return [...parts, wide(table(head, lines)), ...suites.map((suite) => provenance(suite, row.cells[suite]))];
}

function detailLine(row, suite, cell) {
  const texts = [title(suite), cell.score, cell.drop, ...cell.vs, String(cell.n), cell.verdict || "–", cell.gflops, cell.date.replace("T", " ") + " UTC"];
  return texts.map((text) => make("span", {}, text));
}

function provenance(suite, cell) {
  const parts = [
    make("p", {}, make("code", {}, textAt(cell.made))),
    make("pre", {}, make("code", {}, textAt(cell.command) || "no command was recorded")),
    make("p", {}, "Parameters: ", make("code", {}, textAt(cell.params))),
  ];
  if (textAt(cell.origin)) parts.push(make("p", {}, "Recipe fitted: ", make("code", {}, textAt(cell.origin))));
  if (textAt(cell.note)) parts.push(make("p", {}, "Note: " + textAt(cell.note)));
  if (cell.examples.length) parts.push(make("p", {}, "Questions that pruning lost, " + cell.examples.length + " of " + cell.lost + ":"), wide(table(["question", "expected", "dense", "pruned"], cell.examples.map((said) => said.map(textAt)))));
  const lost = cell.lost ? ", " + cell.lost + (cell.lost === 1 ? " question lost" : " questions lost") : "";
  return make("details", {}, make("summary", {}, title(suite) + lost + ": versions, command"), parts);
}

// ---- Filters

function drawFilters() {
  const change = (name) => (value) => {
    view[name] = value;
    view.all = false;
    drawBoard();
  };
  const models = [["", "all"], ...data.tables.map((one, place) => [String(place), one.heading])];
  const reductions = [...new Set(data.rows.map((row) => row.reduction).filter(known))].sort((one, other) => one - other);
  const words = make("input", { type: "search", id: "filter-words", oninput: () => change("words")(words.value) });
  const tick = make("input", { type: "checkbox", id: "filter-optimal", onchange: () => change("optimal")(tick.checked) });
  const boxes = [
    select("Model", models, change("table"), ""),
    select("Method", [["", "all"], ...data.methods.map((name) => [name, name])], change("method"), ""),
    select("Reduction", [["", "all"], ...reductions.map((value) => [String(value), String(value)])], change("reduction"), ""),
  ];
  ["table", "method", "reduction"].forEach((name, place) => (boxes[place][1].id = "filter-" + name));
  find("filters").append(...boxes.map(([label]) => label), make("label", {}, "Find", words), make("label", { class: "tick" }, tick, "Pareto-optimal ◆ only"), suiteTicks());
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("more").addEventListener("click", () => {
    view.all = true;
    drawBoard();
  });
}

function suiteTicks() {
  const ticks = Object.keys(data.suites).map((suite) => {
    const box = make("input", { type: "checkbox", checked: true, id: "suite-" + suite, onchange: () => {
      if (box.checked) view.hidden.delete(suite);
      else view.hidden.add(suite);
      drawColumns();
    } });
    return make("label", { class: "tick" }, box, title(suite));
  });
  return make("fieldset", {}, make("legend", {}, "Suites"), ticks);
}

// ---- Tables beside the leaderboard, where there are any: what downsampling does not answer, means over seeds

function drawBeside(id, tables) {
  find(id).hidden = tables.length === 0;
  for (const one of tables) {
    const [head, ...lines] = [one.columns, ...one.lines].map((cells) => cells.map((text) => make("span", {}, text)));
    const notes = one.notes.map((note) => make("p", { class: "note" }, note));
    find(id + "-body").append(...(one.heading ? [make("h3", {}, one.heading)] : []), wide(table(head, lines)), ...notes);
  }
}

// ---- Charts

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const redraw = [];
dark.addEventListener("change", () => redraw.forEach((draw) => draw()));

function theme(width) {
  const style = getComputedStyle(document.documentElement);
  const [front, faint, line] = ["--front", "--faint", "--line"].map((name) => style.getPropertyValue(name).trim());
  return {
    background: null,
    font: "system-ui, sans-serif",
    axis: { labelColor: faint, titleColor: front, gridColor: line, domainColor: faint, tickColor: faint, titleFontWeight: "normal" },
    legend: { labelColor: front, titleColor: front, columns: Math.max(1, Math.floor(width / 130)), labelLimit: 180 },
    view: { stroke: line },
    text: { color: front },
  };
}

function draw(element, kind, points) {
  if (!window.vegaEmbed) return;
  const spec = Object.assign({}, data.charts[kind], { datasets: { points: points } });
  const config = Object.assign({}, spec.config, theme(element.clientWidth));
  window.vegaEmbed(element, Object.assign(spec, { config: config }), { actions: false, renderer: "svg" }).catch((error) => {
    element.textContent = "The chart cannot be drawn: " + error.message;
  });
}

function point(row, place, kind) {
  const figure = place === AVERAGE ? row.average : row.cells[place] && row.cells[place].figure;
  const suites = place === AVERAGE ? data.tables[row.table].suites : [place];
  const cells = suites.map((suite) => row.cells[suite]).filter(Boolean);
  const read = kind === "flops" ? (cell) => [cell.flops, cell.flops, cell.flops] : (cell) => cell.latency;
  const [x, from, to] = [0, 1, 2].map((end) => mean(cells.map((cell) => read(cell)[end]).filter(known)));
  if (!figure || !known(figure[0]) || !known(x)) return null;
  const half = known(figure[1]) ? figure[1] : 0;
  return {
    method: row.method, ids: row.ids, name: row.name, x: x, from: from ?? x, to: to ?? x,
    score: figure[0], low: Math.max(0, figure[0] - half), high: Math.min(100, figure[0] + half),
    optimal: row.optimal[kind].includes(place), named: data.tables[row.table].named.includes(row.method),
    figure: textOf(row, place), flops: textOf(row, "GFLOPs"), prefill: textOf(row, "time, of dense"), saved: textOf(row, "saved"),
  };
}

function drawCharts() {
  if (!window.vegaEmbed) {
    find("chart-note").textContent = "This page was made without the extra “charts” (Altair and vl-convert), so it has none.";
    return;
  }
  const chosen = { table: 0, place: data.tables[0].places[0] };
  const show = () => {
    const rows = data.rows.filter((row) => row.table === chosen.table);
    for (const kind of ["flops", "latency"]) draw(find("chart-" + kind), kind, rows.map((row) => point(row, chosen.place, kind)).filter(Boolean));
    const timed = data.tables[chosen.table].timed;
    find("chart-note").textContent = data.tables[chosen.table].heading + ", " + title(chosen.place) + "; measured on " + data.tables[chosen.table].devices.join(", ") + (timed.length && String(timed) !== String(data.tables[chosen.table].devices) ? ", times on " + timed.join(", ") : "") + ".";
  };
  const places = () => data.tables[chosen.table].places.map((place) => [place, title(place)]);
  const [placeLabel, placeBox] = select("Suite", places(), (value) => { chosen.place = value; show(); }, chosen.place);
  const [tableLabel, tableBox] = select("Model", data.tables.map((one, place) => [String(place), one.heading]), (value) => {
    chosen.table = Number(value);
    if (!data.tables[chosen.table].places.includes(chosen.place)) chosen.place = data.tables[chosen.table].places[0];
    placeBox.replaceChildren(...places().map(([name, text]) => make("option", { value: name, selected: name === chosen.place }, text)));
    show();
  }, "0");
  placeBox.id = "chart-suite";
  tableBox.id = "chart-table";
  find("chart-controls").append(tableLabel, placeLabel);
  redraw.push(show);
  show();
}

// ---- Methods

function drawMethods() {
  const chosen = { table: 0 };
  const [label, box] = select("Model", data.tables.map((one, place) => [String(place), one.heading]), (value) => {
    chosen.table = Number(value);
    show();
  }, "0");
  box.id = "method-table";
  const show = () => find("method-list").replaceChildren(...data.methods.map((name) => method(name, chosen.table)));
  find("method-controls").append(label);
  show();
}

function method(name, place) {
  const rows = data.rows.filter((row) => row.method === name && row.table === place);
  const body = make("div", {});
  const fill = () => {
    if (box.open) body.replaceChildren(...methodBody(name, rows));
  };
  const box = make("details", { id: "method-" + name, ontoggle: fill }, make("summary", {}, name + (rows.length ? "" : " (no row of this model)")), body);
  return box;
}

function methodBody(name, rows) {
  const counted = rows.filter((row) => row.tokens.length), parts = [];
  for (const row of rows.filter(isRefused)) parts.push(make("p", {}, row.name + " " + refusal(row)));
  if (counted.length) parts.push(...tokenParts(name, counted));
  else parts.push(make("p", { class: "note" }, "No result of this method says how many tokens were left in each layer."));
  for (const row of rows.filter((one) => !isRefused(one))) parts.push(make("p", {}, row.name + ": ", make("code", {}, textAt(Object.values(row.cells)[0].params))));
  const printed = data.published.rows.filter((row) => row.method === name);
  if (printed.length) parts.push(make("p", {}, "Published figures of " + name + ": ", make("a", { href: "#published" }, printed.length + (printed.length === 1 ? " line" : " lines") + " below"), "."));
  return parts;
}

function tokenParts(name, rows) {
  const chart = make("div", { class: "chart", "data-tokens": name });
  const points = rows.flatMap((row) => row.tokens.map((left, layer) => ({ name: row.name, layer: layer, left: left })));
  const show = () => chart.isConnected && draw(chart, "tokens", points);
  redraw.push(show);
  requestAnimationFrame(show);
  const layers = rows[0].tokens.map((_, layer) => make("span", {}, String(layer)));
  const lines = rows.map((row) => [row.name, ...row.tokens.map(shortNumber)].map((text) => make("span", {}, text)));
  return [make("p", {}, "Visual tokens left after each decoder layer, mean over the questions:"), chart, wide(table([make("span", {}, "layer"), ...layers], lines))];
}

// ---- Searches

function drawTuned() {
  find("tuned").hidden = data.tuned.length === 0;
  for (const one of data.tuned) {
    const points = one.frontier.map((tried) => Object.assign({ verdict: tried.certified ? "certified" : "not certified" }, tried));
    const chart = make("div", { class: "chart" });
    const lines = points.map((tried) => [tried.name, (100 * tried.saves).toFixed(1) + "%", tried.most.toFixed(2), String(tried.asked), tried.verdict].map((text) => make("span", {}, text)));
    const head = ["candidate", one.goal === "latency" ? "saves, of the time" : "saves, of the visual FLOPs", "drop at most, points", "questions", ""].map((text) => make("span", {}, text));
    find("tuned-body").append(make("h3", {}, one.model), make("p", {}, one.headline), chart, wide(table(head, lines)), make("p", { class: "note" }, "The drops hold for all candidates and suites at once, with 95 % confidence, and are wider than what certifies one. Made by ", make("code", {}, one.command), "."));
    const show = () => draw(chart, "tuned", points);
    redraw.push(show);
    show();
  }
}

// ---- Gallery

function drawGallery() {
  const body = find("gallery-body");
  if (!data.gallery.length) {
    body.append(make("p", { class: "note" }, "No pictures here yet: ", make("code", {}, "fitprune gallery --results DIR"), " makes them."));
    return;
  }
  const key = (scene) => scene.model + ", " + title(scene.suite);
  const groups = [...new Set(data.gallery.map(key))];
  const questions = make("fieldset", { class: "questions" }), stage = make("div", {});
  const show = (group) => drawQuestions(questions, stage, data.gallery.filter((scene) => key(scene) === group));
  const [label, box] = select("Model and suite", groups.map((group) => [group, group]), show, groups[0]);
  box.id = "gallery-group";
  const form = make("form", { onsubmit: (event) => event.preventDefault() }, make("div", { class: "controls" }, label), questions);
  body.append(form, stage);
  show(groups[0]);
}

function drawQuestions(questions, stage, scenes) {
  const choices = scenes.map((scene, place) => {
    const radio = make("input", { type: "radio", name: "question", value: String(place), checked: place === 0, onchange: () => drawScene(stage, scene) });
    const picture = scene.views.find((one) => one.picture);
    return make("label", {}, radio, picture ? make("img", { src: picture.picture, alt: "" }) : null, scene.question);
  });
  questions.replaceChildren(make("legend", { class: "note" }, "Pick an image and its question"), ...choices);
  drawScene(stage, scenes[0]);
}

function drawScene(stage, scene) {
  const layers = Math.max(0, ...scene.pruned.map((part) => (part.layers || []).length));
  const said = make("output", { id: "layer-said" }), panels = make("div", { class: "scenes" });
  const slider = make("input", { type: "range", id: "layer", min: "-1", max: String(layers - 1), value: String(layers - 1), oninput: () => show() });
  const show = () => {
    const layer = Number(slider.value);
    said.textContent = layer < 0 ? "before the first layer" : "after layer " + layer + " (0 to " + (layers - 1) + ")";
    slider.setAttribute("aria-valuetext", said.textContent);
    panels.replaceChildren(...scene.pruned.map((part) => panel(scene, part, layer)));
  };
  stage.replaceChildren(
    make("p", {}, make("strong", {}, scene.question), " — expected: ", make("em", {}, scene.target)),
    make("p", { id: "dense-answer" }, "dense: ", answer(scene.dense)),
    make("div", { class: "slider" }, make("label", { for: "layer" }, "Layer"), slider, said),
    make("p", { class: "note" }, "A merged or averaged token is marked at the patch that it is named by."),
    panels,
    make("details", {}, make("summary", {}, "Command, versions"), make("pre", {}, make("code", {}, scene.command)), make("p", { class: "note" }, [scene.date, "device " + scene.device, "seed " + scene.seed, "weights " + scene.revision].join("; ") + "; " + Object.entries(scene.versions || {}).map((pair) => pair.join(" ")).join(", "))),
  );
  show();
}

function answer(given) {
  const right = known(given.score) ? (given.score >= 0.5 ? " ✓" : " ✗") : "";
  return make("span", { class: right === " ✗" ? "loses" : right ? "beats" : null }, given.answer + right);
}

function panel(scene, part, layer) {
  const name = part.pruner + (known(part.reduction) ? " " + part.reduction : "");
  if ("cannot" in part) return make("div", { class: "scene" }, make("h3", {}, name), make("p", {}, "cannot: " + part.cannot));
  const kept = layer < 0 ? () => true : keptBy(part.masks[part.layers[layer]]);
  const left = layer < 0 ? part.tokens : part.left[layer];
  const marked = layer < 0 ? left : countOf(part.masks[part.layers[layer]]);
  const unmarked = left > marked ? ", " + (left - marked) + " of them of no single patch" : "";
  const views = part.views || scene.views;
  let first = 0;
  const pictures = views.map((one) => {
    const drawn = picture(one, first, part.tokens, kept, name);
    first += one.columns * one.rows;
    return [drawn, views.length > 1 || !one.picture ? make("p", { class: "note" }, one.label) : null];
  });
  return make("div", { class: "scene", "data-pruner": part.pruner }, make("h3", {}, name), make("p", { class: "left" }, left + " of " + part.tokens + " tokens left" + unmarked), make("p", { class: "note" }, part.tower ? "Changes the picture or the tower: a mark names a token, the token is more than that patch." : null), ...pictures.flat(), make("p", {}, "answer: ", answer(part)));
}

function countOf(mask) {
  return [...mask].reduce((sum, digit) => sum + [0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4][parseInt(digit, 16)], 0);
}

// A mask has a bit a token, four to a hexadecimal digit, the first one highest.
function keptBy(mask) {
  return (token) => ((parseInt(mask[token >> 2], 16) >> (3 - (token & 3))) & 1) === 1;
}

function picture(one, first, tokens, kept, name) {
  const side = Math.max(4, Math.floor(480 / Math.max(one.columns, one.rows)));
  const canvas = make("canvas", { width: one.columns * side, height: one.rows * side, role: "img", "aria-label": one.label + " under " + name });
  const pen = canvas.getContext("2d");
  const cover = () => coverLost(pen, one, first, tokens, kept, side);
  if (!one.picture) {
    pen.fillStyle = "#2f8fdd";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    cover();
    return canvas;
  }
  const image = new Image();
  image.addEventListener("load", () => {
    pen.imageSmoothingEnabled = false;
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    cover();
  });
  image.src = one.picture;
  return canvas;
}

function coverLost(pen, one, first, tokens, kept, side) {
  for (let place = 0; place < one.columns * one.rows; place++) {
    const token = first + place, x = (place % one.columns) * side, y = Math.floor(place / one.columns) * side;
    if (token < tokens && kept(token)) {
      pen.strokeStyle = "rgba(255,255,255,.55)";
      pen.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
    } else {
      pen.fillStyle = token < tokens ? "rgba(20,22,26,.8)" : "rgba(128,128,128,1)";
      pen.fillRect(x, y, side, side);
    }
  }
}

// ---- Published figures, and how the others were measured

function drawPublished() {
  const sources = [...new Set(data.published.rows.map((row) => row.source))];
  const head = ["model", "method", "setting", ...data.published.titles, "source"].map((text) => make("span", {}, text));
  const lines = data.published.rows.map((row) =>
    [row.model, row.method, row.setting, ...data.published.suites.map((suite) => row.values[suite] || "–"), "[" + (sources.indexOf(row.source) + 1) + "]"].map((text) => make("span", {}, text)),
  );
  find("quoted").textContent = data.quoted;
  find("published-table").replaceWith(table(head, lines));
  find("sources").append(...sources.map((source) => make("li", {}, source)));
}

function drawMeasured() {
  for (const one of data.tables) {
    const notes = make("ul", {}, one.notes.map((note) => make("li", {}, note)));
    const again = [make("p", {}, "Run it again (each row above holds the command of each of its figures):"), make("pre", {}, make("code", {}, one.command))];
    find("measured-body").append(make("details", { open: !severalTables }, make("summary", {}, one.heading), notes, again));
  }
  if (data.notes.length) find("measured-body").append(make("h3", {}, "Left out"), make("ul", {}, data.notes.map((note) => make("li", {}, note))));
}

// ---- What the page says first

function drawHeadlines() {
  const said = data.tables.filter((one) => one.sentence).map((one) => make("p", { class: "headline" }, (severalTables ? shortName(one) + ": " : "") + one.sentence));
  find("headlines").append(...said.slice(0, 3));
  const failed = data.tables.flatMap((one) => one.failures.map((text) => (severalTables ? shortName(one) + ", " : "") + text));
  if (!failed.length) return;
  const line = (text) => make("li", {}, text);
  const rest = failed.length > 3 ? make("details", {}, make("summary", {}, failed.length - 3 + " more"), make("ul", {}, failed.slice(3).map(line))) : null;
  find("gate").append(make("h2", { class: "failed" }, "✗ The gate failed " + failed.length + (failed.length === 1 ? " cell" : " cells")), make("ul", {}, failed.slice(0, 3).map(line)), ...(rest ? [rest] : []));
  find("gate").hidden = false;
}

drawHeadlines();
drawFilters();
drawColumns();
const asked = data.tables.filter((one) => one.difficulty);
drawBeside("difficulty", asked.map((one) => Object.assign({ heading: severalTables ? one.heading : "" }, one.difficulty)));
drawBeside("seeds", data.seeds);
drawCharts();
drawTuned();
drawMethods();
drawGallery();
drawPublished();
drawMeasured();
})();
