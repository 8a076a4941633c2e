// Says in words what a block is, for `--verbose`: the fields of roots, record headers, footers and pages that matter when a history goes wrong. Knows
// offsets of the format by heart (assembly/format): nothing but the eyes of a person depends on them.

const BLOCK = 4096;

export function explain(bytes: Uint8Array): string {
  const parts: string[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + BLOCK <= bytes.length; at += BLOCK) {
    const magic = String.fromCharCode(...bytes.subarray(at, at + 4));
    if (magic === 'VVL1') parts.push(root(view, at));
    else if (magic === 'VVR1') parts.push(record(view, at));
    else if (magic === 'VVF1') parts.push(footer(view, at));
    else if (magic.startsWith('VV')) parts.push(`page ${magic}`);
    else parts.push('.');
  }
  return parts.join(' ');
}

function u64(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}

function place(volume: number, segment: number, rest = ''): string {
  return volume === 0xffff ? 'none' : `${volume}:${segment}${rest}`;
}

function root(view: DataView, at: number): string {
  const streams = [0, 1].map((stream) => {
    const s = at + 144 + stream * 64;
    const list: string[] = [];
    for (let i = 0; i < view.getUint16(s + 48, true); i++) {
      const entry = at + 512 + stream * 1024 + i * 16;
      list.push(`${place(view.getUint16(entry, true), view.getUint32(entry + 4, true))}#${u64(view, entry + 8)}`);
    }
    const start = place(view.getUint16(s, true), view.getUint32(s + 4, true), `.${view.getUint16(s + 2, true)}#${u64(view, s + 8)}`);
    const open = place(view.getUint16(s + 24, true), view.getUint32(s + 28, true), `.${view.getUint16(s + 26, true)}#${u64(view, s + 32)}`);
    return `start ${start} open ${open} next [${list.join(' ')}]`;
  });
  const cuts: string[] = [];
  for (let i = 0; i < view.getUint16(at + 140, true); i++) {
    const cut = at + 2560 + i * 40;
    const from = place(view.getUint16(cut, true), view.getUint32(cut + 4, true), `.${view.getUint16(cut + 2, true)}#${u64(view, cut + 8)}`);
    cuts.push(`${from}→${place(view.getUint16(cut + 16, true), view.getUint32(cut + 20, true))}#${u64(view, cut + 24)}`);
  }
  return (
    `ROOT g${u64(view, at + 64)} life ${u64(view, at + 72)} from ${u64(view, at + 80)} replay ${u64(view, at + 88)} end ${u64(view, at + 96)} ` +
    `durable ${u64(view, at + 104)} checkpoint ${u64(view, at + 120)} pages ${view.getUint32(at + 136, true)}${view.getUint32(at + 28, true) & 1 ? ' clean' : ''} ` +
    `{user ${streams[0]}} {survivors ${streams[1]}}${cuts.length ? ` cuts ${cuts.join(' ')}` : ''}`
  );
}

function record(view: DataView, at: number): string {
  const kind = ['?', 'data', 'move', 'operation'][view.getUint8(at + 6)];
  const entries = view.getUint16(at + 60, true);
  const operation = view.getUint8(at + 6) === 3 ? ` op ${view.getUint16(at + 256, true)}` : '';
  const what: string[] = [];
  for (let i = 0; i < Math.min(entries, 12); i++) {
    const entry = at + 256 + i * 24;
    what.push(
      `${['?', 'd', 't', 'm'][view.getUint8(entry)]}${view.getUint16(entry + 2, true)}/${view.getUint32(entry + 8, true)}@${view.getUint32(entry + 4, true)}`,
    );
  }
  return (
    `[${kind}${operation} stream ${view.getUint8(at + 7)} s${u64(view, at + 16)}+${entries || 1} fill ${u64(view, at + 32)}.${view.getUint32(at + 56, true)} ` +
    `life ${u64(view, at + 40)} durable ${u64(view, at + 24)}${what.length ? ` ${what.join(',')}` : ''}]`
  );
}

function footer(view: DataView, at: number): string {
  const next = place(view.getUint16(at + 44, true), view.getUint32(at + 48, true), `#${u64(view, at + 56)}`);
  const used = view.getUint16(at + 40, true);
  let slots = '';
  for (let slot = 0; slot < Math.min(used, 24); slot++) {
    const entry = at + 96 + slot * 24;
    const kind = view.getUint8(entry);
    slots += kind === 8 ? ` h${view.getUint8(entry + 1)}+${view.getUint16(entry + 2, true)}` : (['?', 'd', 't', 'm'][kind] ?? '!');
  }
  return (
    `<footer stream ${view.getUint8(at + 6)} fill ${u64(view, at + 16)} life ${u64(view, at + 24)} durable ${u64(view, at + 32)} used ${used} ` +
    `s${u64(view, at + 72)}…${u64(view, at + 80)} next ${next}:${slots}>`
  );
}
