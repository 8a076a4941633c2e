// Says in words what a block of a log is: the fields of roots, record headers, footers and pages that matter to a person who follows what happened. For
// `varve dump`, and for the simulator's traces. Knows offsets of the format by heart (docs/FORMAT.md); nothing but eyes depends on what it says, and it
// checks nothing: what it is given is what the core found sound, or what a person wants to see although it is not.
//
//   [data stream 0 s13+6 fill 3.0 life 1 durable 12 d2/16…18@1,d2/0…2@1]
//          a record in slot 0 of the segment with fill sequence 3, sequences 13 to 18: blocks 16 to 18 and 0 to 2 of space 2, born in epoch 1
//          (d data, t trim, m moved)

const BLOCK = 4096;

/** What each block in `bytes` is, joined by blanks; `.` for data. */
export function explain(bytes: Uint8Array): string {
  const parts: string[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + BLOCK <= bytes.length; at += BLOCK) {
    const magic = String.fromCharCode(...bytes.subarray(at, at + 4));
    if (magic === 'VVL1') parts.push(root(view, at));
    else if (magic === 'VVR1') parts.push(record(view, at));
    else if (magic === 'VVF1') parts.push(footer(view, at));
    else if (magic === 'VVP1') parts.push(page(view, at));
    else parts.push('.');
  }
  return parts.join(' ');
}

function u64(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}

function u48(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint16(at + 4, true) * 2 ** 32;
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
  const operation = view.getUint8(at + 6) === 3 ? ` ${operationAt(view, at + 256)}` : '';
  const source =
    view.getUint8(at + 6) === 2 ? ` from ${place(view.getUint16(at + 64, true), view.getUint32(at + 68, true))}#${u64(view, at + 72)}` : '';
  const what = runs(view, at + 256, Math.min(entries, 160));
  return (
    `[${kind}${operation}${source} stream ${view.getUint8(at + 7)} s${u64(view, at + 16)}+${entries || 1} fill ${u64(view, at + 32)}.${view.getUint32(at + 56, true)} ` +
    `life ${u64(view, at + 40)} durable ${u64(view, at + 24)}${what.length ? ` ${what.join(',')}` : ''}]`
  );
}

/** The entries of a record, neighbours of one kind joined. */
function runs(view: DataView, first: number, count: number): string[] {
  const found: string[] = [];
  for (let i = 0; i < count;) {
    const at = first + i * 24;
    const kind = view.getUint8(at);
    const space = view.getUint16(at + 2, true);
    const birth = view.getUint32(at + 4, true);
    const block = u48(view, at + 8);
    let blocks = 1;
    if (kind === 2) {
      blocks = u64(view, at + 16);
      i++;
    } else {
      for (i++; i < count; i++, blocks++) {
        const next = first + i * 24;
        if (view.getUint8(next) !== kind || view.getUint16(next + 2, true) !== space || view.getUint32(next + 4, true) !== birth) break;
        if (u48(view, next + 8) !== block + blocks) break;
      }
    }
    found.push(`${['?', 'd', 't', 'm'][kind] ?? '?'}${space}/${block}${blocks > 1 ? `…${block + blocks - 1}` : ''}@${birth}`);
  }
  return found;
}

const OPERATIONS = ['?', 'create source', 'snapshot', 'delete snapshot', 'resize', 'rollback', 'merge', 'delete source'];
const NAMED = new Set([1, 2, 5]);

function operationAt(view: DataView, at: number): string {
  const op = view.getUint16(at, true);
  const name = new Uint8Array(view.buffer, view.byteOffset + at + 24, Math.min(view.getUint16(at + 2, true), 255)).slice();
  const named = NAMED.has(op) ? ` '${new TextDecoder().decode(name)}'` : '';
  return `${op}: ${OPERATIONS[op] ?? '?'}${named} a ${view.getUint32(at + 4, true)} b ${view.getFloat64(at + 8, true)} c ${view.getUint32(at + 16, true)} d ${view.getUint32(at + 20, true)}`;
}

/** Of a page its kind, checkpoint and fragments. */
function page(view: DataView, at: number): string {
  const kind = ['free', 'state', 'segment table', 'leaves', 'index'][view.getUint8(at + 6)] ?? '?';
  const count = view.getUint16(at + 16, true);
  const fragments: string[] = [];
  if (view.getUint8(at + 6) !== 4) {
    for (let i = 0, from = at + 32; i < count && from + 40 <= at + BLOCK; i++) {
      const space = view.getUint16(from + 8, true);
      const of =
        view.getUint8(from) === 3
          ? `leaf ${space}/${view.getUint32(from + 12, true)}`
          : view.getUint8(from) === 2
            ? `chunk ${view.getUint32(from + 12, true)}`
            : 'state';
      const part =
        view.getUint16(from + 6, true) > 1 ? ` part ${view.getUint16(from + 4, true) + 1}/${view.getUint16(from + 6, true)}` : '';
      fragments.push(`${of}${part} of s${u64(view, from + 32)}`);
      from += 40 + ((view.getUint16(from + 2, true) + 7) & ~7);
    }
  }
  return `<page ${kind} checkpoint ${u64(view, at + 8)}: ${fragments.length ? fragments.join(', ') : `${count} nodes`}>`;
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
