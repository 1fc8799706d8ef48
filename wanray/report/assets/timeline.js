// Who worked when: a row per worker, single requests where they are few, else the share of each stretch.
const PLAIN_ROW = 16, DENSE_ROW = 7, POOL_GAP = 22, AXIS = 34;
const OUTCOME_COLOURS = { done: "--accent", failed: "--bad", lost: "--warn", stopped: "--warn", unfinished: "--muted" };

const timelineRows = () => {
  const rows = [];
  let top = 0;
  data.timeline.pools.forEach((pool, index) => {
    const height = pool.workers.length > 12 ? DENSE_ROW : PLAIN_ROW;
    top += POOL_GAP;
    rows.push({ pool: index, label: pool, top: top - 7 });
    pool.workers.forEach(({ worker, busy }) => {
      rows.push({ pool: index, worker, busy, top, height });
      top += height + 1;
    });
    top += 4;
  });
  return { rows, height: top + AXIS };
};

const drawTimeline = (canvas, width) => {
  const { timeline } = data;
  const { rows, height } = timelineRows();
  const scale = devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const left = 30, length_s = timeline.seconds || 1;
  const x = (at_s) => left + (at_s / length_s) * (width - left - 8);
  const workerRows = new Map(rows.filter((row) => row.busy).map((row) => [`${row.pool}/${row.worker}`, row]));
  drawRows(context, rows, { x, left, width, colour });
  const hits = timeline.spans.length ? drawSpans(context, workerRows, x, colour) : drawShares(context, workerRows, x, colour);
  hits.push(...drawGangs(context, workerRows, x, colour));
  drawAxis(context, { x, length_s, width, height, colour });
  return hits;
};

const drawRows = (context, rows, { x, left, width, colour }) => {
  context.font = "12px system-ui, sans-serif";
  for (const row of rows) {
    if (row.label) {
      const hidden = row.label.num_workers - row.label.workers.length;
      context.fillStyle = colour("--text");
      context.textAlign = "left";
      context.fillText(`${row.label.name}${hidden ? ` (${hidden} more workers are not shown)` : ""}`, 0, row.top);
      continue;
    }
    context.fillStyle = colour("--track");
    context.fillRect(left, row.top, width - left - 8, row.height);
    if (row.height === PLAIN_ROW) {
      context.fillStyle = colour("--muted");
      context.textAlign = "right";
      context.fillText(row.worker, left - 6, row.top + 12);
    }
  }
};

const drawSpans = (context, workerRows, x, colour) => {
  const lanes = new Map();
  for (const [pool, worker, lane] of data.timeline.spans) {
    const name = `${pool}/${worker}`;
    lanes.set(name, Math.max(lanes.get(name) || 1, lane + 1));
  }
  const hits = [];
  for (const [pool, worker, lane, start_s, length_s, outcome, key] of data.timeline.spans) {
    const name = `${pool}/${worker}`;
    const row = workerRows.get(name);
    if (!row) continue;
    const height = row.height / lanes.get(name);
    const box = { left: x(start_s), top: row.top + lane * height, width: Math.max(1, x(start_s + length_s) - x(start_s) - 0.5), height };
    context.fillStyle = colour(OUTCOME_COLOURS[outcome] || "--accent");
    context.fillRect(box.left, box.top, box.width, Math.max(1, box.height - 0.5));
    hits.push({ ...box, key, text: `${data.timeline.pools[pool].name} ${worker}: ${key.slice(0, 8)}, ${seconds(length_s)}, ${outcome}` });
  }
  return hits;
};

const drawShares = (context, workerRows, x, colour) => {
  const { bin_s: bin, pools } = data.timeline;
  const hits = [];
  context.fillStyle = colour("--accent");
  for (const row of workerRows.values()) {
    row.busy.forEach((share, index) => {
      const box = { left: x(index * bin), top: row.top, width: x(bin) - x(0), height: row.height };
      context.globalAlpha = share / 100;
      context.fillRect(box.left, box.top, box.width + 0.3, box.height);
      hits.push({ ...box, text: `${pools[row.pool].name} ${row.worker}: busy ${share} % of ${seconds(bin)}` });
    });
  }
  context.globalAlpha = 1;
  return hits;
};

const drawGangs = (context, workerRows, x, colour) => {
  const hits = [];
  for (const [pool, worker, at_s, state, detail] of data.timeline.gangs) {
    const row = workerRows.get(`${pool}/${worker}`);
    if (!row) continue;
    context.fillStyle = colour("--bad");
    context.fillRect(x(at_s) - 1, row.top - 1, 2, row.height + 2);
    hits.push({ left: x(at_s) - 4, top: row.top, width: 8, height: row.height, text: `${data.timeline.pools[pool].name} ${worker}: ${state}: ${detail}` });
  }
  return hits;
};

const drawAxis = (context, { x, length_s, width, height, colour }) => {
  const [unit_s, unit] = timeUnit(length_s);
  context.fillStyle = colour("--muted");
  context.textAlign = "center";
  for (const at_s of timeTicks(length_s, Math.max(2, Math.floor(width / 90)))) {
    context.fillText(rounded(at_s / unit_s), x(at_s), height - 18);
    context.fillRect(x(at_s), height - AXIS + 2, 1, 4);
  }
  context.fillText(`time since the start (${unit})`, width / 2, height - 3);
};

const showTimeline = (host, openClip) => {
  const canvas = el("canvas", { role: "img", "aria-label": "Timeline of the pools; the table above tells their sums" });
  const tip = el("p", { class: "tip", "aria-hidden": "true" }, "\u00a0");
  let hits = [];
  const at = (event) => {
    const { left, top } = canvas.getBoundingClientRect();
    const [px, py] = [event.clientX - left, event.clientY - top];
    return hits.findLast((hit) => px >= hit.left && px <= hit.left + hit.width && py >= hit.top && py <= hit.top + hit.height);
  };
  canvas.addEventListener("mousemove", (event) => { tip.textContent = at(event)?.text || "\u00a0"; });
  canvas.addEventListener("click", (event) => { const hit = at(event); if (hit?.key) openClip(hit.key); });
  host.append(canvas, tip);
  return () => { hits = drawTimeline(canvas, innerWidthOf(host)); };
};
