// Head, numbers and what a reader has to know before trusting them.
const withConfig = (text, run) => text.replaceAll("{config}", quoted(`${data.url}/runs/${run}/config.yaml`));
const settingsOf = (clip) => data.settings[clip.settings] || {};

const showHead = () => {
  const { run } = data;
  const badge = run.state === "finished" ? { 0: "good", 2: "warn" }[run.exit_code] || "bad" : run.state === "running" ? "good" : "bad";
  const state = run.state === "finished" ? `finished, exit code ${run.exit_code}` : run.state;
  const when = run.start_s ? `${moment(run.start_s * 1000)} to ${moment(run.end_s * 1000)}` : "";
  const model = run.model ? `${run.model.name} (${run.model.digest.slice(0, 12)})` : "";
  put(byId("head"),
    el("p", { class: "brand" }, "wanray report"),
    el("h1", {}, words(run.name), " ", el("span", { class: `badge ${badge}` }, state)),
    run.error ? words(run.error, { class: "error" }, "p") : "",
    parameters([
      ["Model", model], ["Numerics", run.numerics ? valueText(run.numerics) : ""], ["Placement", run.placement],
      ["Time", when], ["Output", data.url], ["Go on", command(withConfig(run.command, run.name))],
    ]),
  );
  byId("foot").append(`Made ${moment(data.made_at)} from ${data.url}`);
};

const tile = (value, label, detail = "") =>
  el("div", { class: "tile" }, el("strong", {}, value), el("span", {}, label), detail ? el("small", {}, detail) : "");

const showNumbers = () => {
  const { run, estimate } = data;
  const committed = data.clips.filter((clip) => clip.status === "committed");
  const size = committed.reduce((sum, clip) => sum + clip.bytes, 0);
  const of = run.counts.left === undefined ? "" : `of ${run.counts.left.toLocaleString("en")} to render`;
  const left = [[run.counts.committed, "committed before"], [run.counts.failed_before, "failed before"], [run.skipped, "left to others"], [run.put_off, "put off for a while"]];
  const about = data.num_left_out && committed.length;
  put(byId("numbers"),
    tile(run.committed.toLocaleString("en"), "clips committed", of),
    tile(run.failed.toLocaleString("en"), "failed", run.counts.invalid ? `${run.counts.invalid} of them invalid rows` : ""),
    tile(run.elapsed_s ? rounded(3600 * run.committed / run.elapsed_s) : "-", "clips per hour", seconds(run.elapsed_s)),
    estimate.gpu_hours.real ? tile(rounded(estimate.gpu_hours.real), "GPU-hours", run.committed ? `${rounded(3600 * estimate.gpu_hours.real / run.committed)} GPU-seconds a clip` : "") : "",
    estimate.cost.real ? tile(`${rounded(estimate.cost.real)} ${estimate.currency}`, "cost", run.committed ? `${rounded(estimate.cost.real / run.committed)} ${estimate.currency} a clip` : "") : "",
    tile(bytes(about ? size / committed.length * run.committed : size), "of videos", committed.length ? `${about ? "about, " : ""}${bytes(size / committed.length)} a clip` : ""),
  );
  const more = left.filter(([number]) => number).map(([number, what]) => `${number.toLocaleString("en")} ${what}`);
  const notes = [
    more.length ? `Besides: ${more.join(", ")}.` : "",
    run.num_starts > 1 ? `The run was started ${run.num_starts} times; the numbers are those of all of it.` : "",
    run.state === "running" ? "The run goes on; this page shows it as it was." : "",
    data.num_left_out ? `${data.num_left_out.toLocaleString("en")} clips or failures are not on this page, which shows the newest: --limit takes more.` : "",
    data.num_unreadable ? `${count(data.num_unreadable, "clip")} could not be read: wanray verify tells why.` : "",
  ];
  byId("notes").append(...notes.filter(Boolean).map((note) => el("p", { class: "note" }, note)));
};

const estimateTable = () => {
  const { estimate } = data;
  const off = ({ estimate: planned, real }) => {
    if (!planned || real === null) return "-";
    const ratio = real / planned;
    return ratio > 10 ? `x ${rounded(ratio)}` : `${ratio >= 1 ? "+" : ""}${rounded(100 * (ratio - 1))} %`;
  };
  const row = (name, pair, show) => [name, pair.estimate === null ? "-" : show(pair.estimate), pair.real === null ? "-" : show(pair.real), off(pair)];
  const rows = [
    row("Start of the workers", estimate.start_s, seconds),
    row("First request to the end", estimate.work_s, seconds),
    row("GPU-hours", estimate.gpu_hours, rounded),
    row("Cost", estimate.cost, (value) => `${rounded(value)} ${estimate.currency}`),
    ...estimate.pools.map((pool) => row(`Work of each in ${pool.name}`, pool.busy_s, seconds)),
  ];
  const known = rows.filter(([, planned, real]) => planned !== "-" || real !== "-");
  return table(["", "estimate", "reality", "off by"], known, { label: "Estimate against reality" });
};

const hasEstimate = () => [data.estimate.work_s, ...data.estimate.pools.map((pool) => pool.busy_s)].some((pair) => pair.estimate !== null);

const poolTable = () =>
  table(["pool", "workers", "busy", "done", "failed", "lost", "rebuilds"],
    data.estimate.pools.map((pool) => [pool.name, pool.num_workers, percent(pool.busy_share), ...[pool.done, pool.failed, pool.lost, pool.num_rebuilds].map((number) => number.toLocaleString("en"))]),
    { label: "Pools" });
