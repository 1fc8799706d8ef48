// One clip, large: it plays, and everything is told of it.
const labelOf = (clip) => (clip.ids || [])[0] || clip.key.slice(0, 8);

const commandOf = (clip) => {
  if (clip.stage === "plan") return null; // a row that is invalid is mended in its manifest
  const text = clip.status === "failed" ? data.run.retry : data.run.reproduce;
  return withConfig(text, clip.run || data.run.name).replaceAll("{key}", quoted(clip.key));
};

const requestPairs = (clip) => {
  const { model, numerics, negative_prompt: negative, width, height, num_frames: frames, fps, extension, ...rest } = settingsOf(clip);
  const others = Object.entries(rest).filter(([, value]) => value !== null && !(Array.isArray(value) && !value.length));
  return [
    ["Size", width ? `${width} x ${height}, ${count(frames, "frame")} at ${rounded(fps)} per second` : ""], ["Seed", clip.seed],
    ...others.map(([name, value]) => [name.replaceAll("_", " "), valueText(value)]),
    ["Inputs", Object.entries(clip.inputs || {}).map(([name, digests]) => `${name} ${digests.map((digest) => digest.slice(0, 12)).join(", ")}`).join("; ")],
    ["Extension", extension && extension.method !== "none" ? valueText(extension) : ""],
    ["Negative prompt", negative], ["Model", model ? `${model.name} ${model.digest.slice(0, 12)}` : ""], ["Numerics", numerics ? valueText(numerics) : ""],
  ];
};

const clipDetails = (clip) => {
  const { topology, versions } = data.settings[clip.made] || {};
  const given = clip.timings_s || {};
  const timings = data.latencies.filter(({ stage }) => stage in given).map(({ stage }) => `${stage} ${seconds(given[stage])}`).join(", ") || valueText(given);
  const how = commandOf(clip);
  return [
    clip.message ? words(clip.message, { class: "error" }, "p") : "",
    clip.prompt ? [heading(3, "Prompt"), words(clip.prompt, { class: "prompt" }, "p")] : "",
    clip.extended?.prompt ? [heading(3, "Extended prompt"), words(clip.extended.prompt, { class: "prompt" }, "p")] : "",
    clip.extended?.kept ? words(`Kept as written: ${clip.extended.kept}`, { class: "note" }, "p") : "",
    (clip.notes || []).map((note) => words(note, { class: "note" }, "p")),
    parameters([
      ["Ids", (clip.ids || []).join(", ")], ["Tags", tagsOf(clip).join(", ")], ...requestPairs(clip),
      ["File", clip.bytes ? `${clip.codec}, ${bytes(clip.bytes)}` : ""], ["Work", timings], ["First dispatch to commit", clip.whole_s ? seconds(clip.whole_s) : ""],
      ["Attempts", clip.attempts], ["Failed at", clip.stage ? `${clip.stage}: ${clip.class}, ${clip.cause}` : ""],
      ["Gangs", topology ? valueText(topology) : ""], ["Versions", versions ? valueText(versions) : ""],
      ["Made", `${moment(clip.created_at)}, run ${clip.run}`], ["Key", clip.key],
    ]),
    (clip.tries || []).length ? [heading(3, "Tries that failed"), el("ol", {}, clip.tries.map((item) => words(`${item.stage}: ${item.message}`, {}, "li")))] : "",
    how ? [heading(3, clip.status === "failed" ? "Try again" : "Render this clip again"), command(how), el("p", { class: "hint" }, "Where the run was started: its paths may be relative.")] : "",
  ];
};

let openMedium = null;

const openClip = (clip, neighbours) => {
  const dialog = byId("clip");
  const index = neighbours.indexOf(clip);
  const go = (to, label) => {
    const button = el("button", { type: "button", class: "small" }, label);
    button.disabled = !to;
    button.addEventListener("click", () => openClip(to, neighbours));
    return button;
  };
  const close = el("button", { type: "button", class: "small" }, "Close");
  close.addEventListener("click", () => dialog.close());
  const [previous, next] = [neighbours[index - 1], neighbours[index + 1]];
  openMedium?.pause();
  openMedium = clip.status === "committed" ? makeMedium(clip) : null;
  dialog.replaceChildren(
    el("div", { class: "bar-top" }, words(labelOf(clip), { class: "title" }, "h2"), go(previous, "Previous"), go(next, "Next"), close),
    el("div", { class: openMedium ? "two" : "one" }, openMedium ? el("div", { class: "stage" }, openMedium.node, el("p", { class: "hint" }, kindOf(clip) === "frames" ? "" : fileLink(clip), openMedium.canSeek ? " Keys: space plays, comma and full stop step a frame, arrows change the clip." : "")) : "", el("div", { class: "details" }, clipDetails(clip))),
  );
  dialog.onkeydown = (event) => {
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const to = { ArrowLeft: previous, ArrowRight: next }[event.key];
    if (to && event.target.tagName !== "VIDEO") openClip(to, neighbours);
    else if (event.key === " " && event.target.tagName !== "BUTTON" && event.target.tagName !== "VIDEO") togglePlay(openMedium);
    else if ((event.key === "," || event.key === ".") && openMedium) stepFrame(openMedium, clip, event.key === "." ? 1 : -1);
    else return;
    event.preventDefault();
  };
  if (!dialog.open) dialog.showModal();
  state.clip = clip.key;
  writeHash();
  close.focus();
  openMedium?.play();
};

const togglePlay = (medium) => { if (medium) (medium.isPlaying() ? medium.pause() : medium.play()); };

const stepFrame = (medium, clip, step) => {
  medium.pause();
  const frame = Math.round(medium.time() * clip.fps - 0.5) + step;
  medium.seek((Math.min(clip.num_frames - 1, Math.max(0, frame)) + 0.5) / clip.fps);
};

byId("clip").addEventListener("close", () => {
  openMedium?.pause();
  byId("clip").replaceChildren();
  state.clip = "";
  writeHash();
});
