// Clips of one prompt beside each other, in step: the first one leads.
const MAX_COMPARED = 16, DRIFT_S = 0.08;

const openComparison = (clip) => {
  const dialog = byId("compare");
  const all = siblingsOf(clip);
  const first = Math.max(0, Math.min(all.indexOf(clip) - 2, all.length - MAX_COMPARED));
  const clips = all.slice(first, first + MAX_COMPARED);
  const media = clips.map(makeMedium);
  const moving = media.filter((medium) => medium.canSeek);
  for (const medium of moving) {
    const video = medium.node.querySelector("video");
    if (video) Object.assign(video, { controls: false, loop: false });
    medium.node.querySelector(".player")?.remove();
  }
  const duration_s = Math.min(...clips.map(durationOf));
  const play = el("button", { type: "button" }, "Pause");
  const slider = el("input", { type: "range", min: 0, max: duration_s, step: 0.01, value: 0, "aria-label": "Time in seconds" });
  const close = el("button", { type: "button", class: "small" }, "Close");
  const clock = el("output", {}, "0 s");
  let playing = true;
  const seekAll = (at_s) => moving.forEach((medium) => medium.seek(at_s));
  const setPlaying = (wanted) => {
    playing = wanted;
    play.textContent = wanted ? "Pause" : "Play";
    moving.forEach((medium) => (wanted ? medium.play() : medium.pause()));
  };
  const keepInStep = () => {
    if (!dialog.open || !moving[0]?.node.isConnected) return;
    const at_s = moving[0].time();
    if (playing && at_s >= duration_s - 0.03) {
      seekAll(0);
      setPlaying(true);
    } else if (playing) {
      for (const medium of moving.slice(1)) if (Math.abs(medium.time() - at_s) > DRIFT_S) medium.seek(at_s);
      slider.value = at_s;
    }
    clock.textContent = `${Number(slider.value).toFixed(2)} s`;
    requestAnimationFrame(keepInStep);
  };
  play.addEventListener("click", () => setPlaying(!playing));
  slider.addEventListener("input", () => { setPlaying(false); seekAll(Number(slider.value)); });
  close.addEventListener("click", () => dialog.close());
  dialog.onclose = () => { setPlaying(false); dialog.replaceChildren(); };
  const title = count(all.length, "seed");
  dialog.replaceChildren(
    el("div", { class: "bar-top" }, heading(2, all.length > clips.length ? `${clips.length} of ${title}` : title), close),
    words(clip.prompt, { class: "prompt" }, "p"),
    moving.length ? el("div", { class: "player" }, play, slider, clock) : "",
    el("div", { class: "compared" }, media.map((medium, index) => el("figure", {}, medium.node, el("figcaption", {}, `seed ${clips[index].seed}`, " ", words(labelOf(clips[index]), { class: "muted" }))))),
  );
  dialog.showModal();
  play.focus();
  setPlaying(true);
  requestAnimationFrame(keepInStep);
};
