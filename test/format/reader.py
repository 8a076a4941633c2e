#!/usr/bin/env python3
"""Reads a Varve pool with nothing but Python's standard library, written from docs/FORMAT.md (the § in the comments).

    reader.py POOL list [--json]                               volumes and snapshots
    reader.py POOL check [--json]                              verifies everything that is in use
    reader.py POOL extract VOLUME[@SNAPSHOT] [--source NAME] OUT
    reader.py POOL digest                                      SHA-256 of every readable state, as JSON

POOL is a directory, or a storage device. --device PATH names a further one; --fast does not verify data blocks. Exit status: 0 done, 1 failed or
damaged, 2 wrong usage. It changes nothing, and takes no lock: the pool must be closed (or its writer dead).
"""
import argparse, bisect, collections, datetime, hashlib, json, os, re, stat, struct, sys, uuid

BLOCK = 4096
NONE = 0xFFFF  # storage volume, space
ABSENT = 0xFFFE
HOLE = 0xFFFF
NOW = 1 << 32  # above every epoch


class Damage(Exception):
    pass


def need(truth, what):
    if not truth:
        raise Damage(what)


# ---- XXH64 (§1, §4) -------------------------------------------------------------------------------------------------

MASK = (1 << 64) - 1
P1, P2, P3, P4, P5 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def rotl(x, n):
    return ((x << n) | (x >> (64 - n))) & MASK


def xxh64(data, seed=0):
    """Products are masked once at the end: what rotl leaves above bit 63 does not reach the low 64 bits. 4096 bytes take about 0.15 ms."""
    length = len(data)
    at = length & ~31
    if at:
        mask, p1, p2 = MASK, P1, P2
        a, b, c, d = (seed + P1 + P2) & mask, (seed + P2) & mask, seed, (seed - P1) & mask
        lanes = iter(struct.unpack_from('<%dQ' % (at >> 3), data))
        for w, x, y, z in zip(lanes, lanes, lanes, lanes):
            a = (a + w * p2) & mask
            b = (b + x * p2) & mask
            c = (c + y * p2) & mask
            d = (d + z * p2) & mask
            a = ((a << 31 | a >> 33) * p1) & mask
            b = ((b << 31 | b >> 33) * p1) & mask
            c = ((c << 31 | c >> 33) * p1) & mask
            d = ((d << 31 | d >> 33) * p1) & mask
        h = (rotl(a, 1) + rotl(b, 7) + rotl(c, 12) + rotl(d, 18)) & mask
        for lane in (a, b, c, d):
            h = ((h ^ (rotl(lane * P2 & MASK, 31) * P1 & MASK)) * P1 + P4) & MASK
    else:
        h = (seed + P5) & MASK
    h = (h + length) & MASK
    while at + 8 <= length:
        lane = rotl(int.from_bytes(data[at:at + 8], 'little') * P2 & MASK, 31) * P1 & MASK
        h = (rotl(h ^ lane, 27) * P1 + P4) & MASK
        at += 8
    if at + 4 <= length:
        h = (rotl(h ^ (int.from_bytes(data[at:at + 4], 'little') * P1 & MASK), 23) * P2 + P3) & MASK
        at += 4
    while at < length:
        h = rotl(h ^ (data[at] * P5 & MASK), 11) * P1 & MASK
        at += 1
    h = (h ^ (h >> 33)) * P2 & MASK
    h = (h ^ (h >> 29)) * P3 & MASK
    return h ^ (h >> 32)


def sealed(data, at, seed=0):
    """Does the checksum at `at` hold, taken with its own field zero?"""
    return struct.unpack_from('<Q', data, at)[0] == xxh64(data[:at] + bytes(8) + data[at + 8:], seed)


# ---- devices, labels, catalogue (§2, §3) ----------------------------------------------------------------------------


class Device:
    """A storage device with sound labels: a member of a storage volume."""

    def __init__(self, path):
        self.path = path
        self.problems = []
        self.fd = os.open(path, os.O_RDONLY)
        size = os.lseek(self.fd, 0, os.SEEK_END) & ~4095
        front = self.label(0, 1)
        slot = 64 << 10 if size < 1 << 30 else 1 << 20
        back = self.label(front['back'] if front else size - (4096 + 2 * slot + 8192), 2)
        label = front or back
        need(label, f'{path}: no sound label')
        need(not (front and back) or all(front[key] == back[key] for key in front), f'{path}: its labels do not agree')
        need(label['size'] <= size, f'{path}: shorter than its label says')
        self.__dict__.update(label)

    def pread(self, offset, length):
        data = os.pread(self.fd, length, offset)
        need(len(data) == length, f'{self.path}: short read at {offset}')
        return data

    def label(self, offset, side):
        where = f'{self.path}: {("front", "back")[side - 1]} label'
        try:
            raw = self.pread(offset, BLOCK)
            need(raw[:8] == b'VARVELBL', f'{where}: no magic')
            major, minor, length = struct.unpack_from('<HHI', raw, 8)
            need(length == BLOCK and sealed(raw, 16), f'{where}: checksum')
        except (Damage, OSError) as problem:
            self.problems.append(str(problem))
            return None
        need(major == 1 and not any(raw[24:32]), f'{where}: unknown version or feature')
        number, member, members, level, its_side, _, strip, blocks, segments, slot = struct.unpack_from('<HBBBBHIIII', raw, 96)
        size, *offsets = struct.unpack_from('<7Q', raw, 120)
        root = BLOCK + 2 * slot
        data, back = root + 8192, size - root - 8192
        need(offsets == [BLOCK, root, data, back, back + BLOCK, back + root], f'{where}: offsets')
        fits = {1: members == 1, 2: members > 1, 3: members > 1, 4: members > 2, 5: members > 3, 6: members > 3 and members % 2 == 0}
        need(fits.get(level) and member < members <= 32, f'{where}: level and members')
        need(strip <= 1 if level == 1 else 1 <= strip <= 256 and strip & (strip - 1) == 0, f'{where}: strip')
        columns = {1: 1, 2: members, 3: 1, 4: members - 1, 5: members - 2, 6: members // 2}[level]
        stripe = columns * strip if level > 1 else 1
        need(its_side == side and 8 <= blocks <= max(1024, 8 * stripe) and blocks % stripe == 0 and segments and number <= 0xFFF0, f'{where}: fields')
        need(data + blocks * segments // columns * BLOCK <= back, f'{where}: the segments do not fit')
        need(minor > 0 or not any(raw[80:96] + raw[102:104] + raw[184:]), f'{where}: reserved bytes')
        return dict(pool=raw[48:64], device=raw[64:80], id=number, member=member, members=members, level=level, strip=max(strip, 1), columns=columns, segment_blocks=blocks, segments=segments, slot=slot, size=size, root=root, data=data, back=back)

    def frames(self):
        """Valid catalogue frames: (generation, nonce, previous, payload)."""
        found = []
        for side, start in (('front', BLOCK), ('back', self.back + BLOCK)):
            for slot in (0, 1):
                offset = start + slot * self.slot
                head = self.pread(offset, BLOCK)
                if not any(head):
                    continue
                try:
                    where = f'{self.path}: {side} catalogue {"AB"[slot]}'
                    magic, major, minor, length, _, generation = struct.unpack_from('<8sHHIQQ', head)
                    need(magic == b'VARVECAT' and length <= self.slot - 128, f'{where}: no frame')
                    raw = self.pread(offset, (128 + length + 4095) & ~4095)
                    need(sealed(raw, 16), f'{where}: checksum')
                    need(major == 1, f'{where}: unknown version')
                    need(generation and generation % 2 == slot and raw[64:80] == self.pool, f'{where}: of another pool or slot')
                    need(minor > 0 or not any(raw[80:128]), f'{where}: reserved bytes')
                    found.append((generation, raw[32:48], raw[48:64], raw[128:128 + length]))
                except Damage as problem:
                    self.problems.append(str(problem))
        return found


def product(a, b):
    """In GF(2⁸) with the polynomial 0x11d."""
    result = 0
    while b:
        if b & 1:
            result ^= a
        a = a << 1 ^ (0x11d if a & 128 else 0)
        b >>= 1
    return result


def power(n):
    result = 1
    for _ in range(n % 255):
        result = product(result, 2)
    return result


def xor(*rows):
    result = 0
    for row in rows:
        result ^= int.from_bytes(row, 'little')
    return result.to_bytes(BLOCK, 'little')


def scaled(factor, row):
    return row.translate(bytes(product(factor, value) for value in range(256)))


class Volume:
    """A storage volume: its members in the order of the stripe map, None where one is not to be read (§2)."""

    def __init__(self, devices):
        self.devices = devices
        self.there = [device for device in devices if device]
        first = self.there[0]
        for key in ('id', 'level', 'strip', 'columns', 'segment_blocks', 'segments', 'data'):
            need(all(getattr(device, key) == getattr(first, key) for device in self.there), f'volume {first.id}: its members are laid out differently')
            setattr(self, key, getattr(first, key))
        self.parity = {4: 1, 5: 2}.get(self.level, 0)
        unit = self.columns * self.strip if self.parity else 1
        self.footer_blocks = unit
        while 96 + 24 * (self.segment_blocks - self.footer_blocks) > BLOCK * self.footer_blocks:
            self.footer_blocks += unit
        self.data_slots = self.segment_blocks - self.footer_blocks

    def missing(self):
        """Whether something cannot be had."""
        gone = [i for i, device in enumerate(self.devices) if not device]
        if self.level == 3:
            return len(gone) == len(self.devices)
        if self.level == 6:
            return any(i ^ 1 in gone for i in gone)
        return len(gone) > self.parity

    def blocks(self, block, count=1):
        need(block + count <= self.segment_blocks * self.segments, f'volume {self.id} has no block {block}')
        if self.level == 1:
            return self.there[0].pread(self.data + block * BLOCK, count * BLOCK)
        return b''.join(self.one(block + i) for i in range(count))

    def one(self, block):
        strips, within = divmod(block, self.strip)
        stripe, column = divmod(strips, self.columns)
        offset = self.data + (stripe * self.strip + within) * BLOCK
        if not self.parity:
            places = {2: [column], 3: range(len(self.devices)), 6: [2 * column, 2 * column + 1]}[self.level]
            return next(self.devices[i] for i in places if self.devices[i]).pread(offset, BLOCK)
        n = len(self.devices)
        p = n - 1 - stripe % n
        holder = [(p + self.parity + c) % n for c in range(self.columns)]
        if self.devices[holder[column]]:
            return self.devices[holder[column]].pread(offset, BLOCK)
        read = {c: self.devices[i].pread(offset, BLOCK) for c, i in enumerate(holder) if self.devices[i]}
        lost = [c for c in range(self.columns) if c not in read]
        has_p = self.devices[p] is not None
        if len(lost) == 1 and has_p:
            return xor(self.devices[p].pread(offset, BLOCK), *read.values())
        q = xor(self.devices[(p + 1) % n].pread(offset, BLOCK), *(scaled(power(c), row) for c, row in read.items()))
        if len(lost) == 1:
            return scaled(power(255 - column), q)
        # Two columns x and y: x + y = p, 2^x x + 2^y y = q.
        sum_p = xor(self.devices[p].pread(offset, BLOCK), *read.values())
        other = lost[0] + lost[1] - column
        divisor = power(column) ^ power(other)
        inverse = next(value for value in range(256) if product(value, divisor) == 1)
        return scaled(inverse, xor(q, scaled(power(other), sum_p)))


class Pool:
    def __init__(self, path, extra):
        paths = list(extra)
        if os.path.isdir(path):
            paths += [os.path.join(path, name) for name in sorted(os.listdir(path)) if re.fullmatch(r'volume-\d{4,5}-[0-9a-f]{8}\.varve', name)]
            try:
                with open(os.path.join(path, 'pool.json'), encoding='utf-8') as cache:
                    members = [member['path'] for member in json.load(cache)['members'] if member['path']]
                paths += [member for member in members if os.path.isabs(member) and os.path.exists(member)]
            except (OSError, ValueError, KeyError, TypeError):
                pass  # it is a cache
        else:
            paths.append(path)
        self.problems = []
        devices = {}
        for where in dict.fromkeys(os.path.realpath(one) for one in paths):
            try:
                need(stat.S_ISREG(os.stat(where).st_mode) or stat.S_ISBLK(os.stat(where).st_mode), f'{where}: neither file nor block device')
                device = Device(where)
                devices.setdefault(device.device, device)
            except (Damage, OSError) as problem:
                self.problems.append(str(problem))
        need(devices, f'{path}: no storage device of a pool ({"; ".join(self.problems)})')
        self.id = collections.Counter(device.pool for device in devices.values()).most_common(1)[0][0]
        devices = {key: device for key, device in devices.items() if device.pool == self.id}
        newest = [max(frames, key=lambda frame: frame[0]) for frames in (device.frames() for device in devices.values()) if frames]
        need(newest, 'no whole catalogue')
        self.generation, nonce, previous, payload = max(newest, key=lambda frame: frame[0])
        self.catalogue = json.loads(payload.decode('utf-8'))
        line = {nonce, previous, *(uuid.UUID(one).bytes for one in self.catalogue['ancestors'])}
        need(all(frame[1] in line for frame in newest), 'catalogues of different histories')
        self.volumes = {}
        for record in self.catalogue['storageVolumes']:
            members = []
            for place, member in enumerate(record['devices']):
                device = devices.get(uuid.UUID(member['uuid']).bytes)
                if device and device.id == record['id'] and device.member == place and 'state' not in member:
                    members.append(device)
                    self.problems += device.problems
                else:
                    members.append(None)
            if any(members):
                volume = Volume(members)
                if not volume.missing():
                    self.volumes[volume.id] = volume
        self.logs = {}

    def log(self, record):
        if record['log'] not in self.logs:
            volumes = next(log['volumes'] for log in self.catalogue['logs'] if log['uuid'] == record['log'])
            need(all(one in self.volumes for one in volumes), f'volume {record["name"]!r}: a storage volume of {volumes} is missing')
            self.logs[record['log']] = Log(uuid.UUID(record['log']).bytes, {one: self.volumes[one] for one in volumes})
        return self.logs[record['log']]


# ---- spaces and leaves (§6.2, §7) -----------------------------------------------------------------------------------


class Leaf:
    """current: block in leaf → (volume, block, birth); history: block in leaf → [(birth, death, volume, block)] in order."""

    def __init__(self, applied=0):
        self.current, self.history, self.applied = {}, {}, applied

    def visible(self, epoch):
        seen = {i: entry for i, entry in self.current.items() if entry[2] <= epoch}
        for i, entries in self.history.items():
            for birth, death, volume, block in entries:
                if birth <= epoch < death:
                    seen[i] = (volume, block, birth)
        return seen


class Space:
    def __init__(self, parent, parent_epoch, made, size, current):
        self.parent, self.parent_epoch, self.uid, self.size, self.current = parent, parent_epoch, made, size, current
        self.leaves = {}
        self.pins = collections.Counter()

    def pinned(self, start, end):
        return any(start <= pin < end for pin in self.pins)


Segment = collections.namedtuple('Segment', 'fill used stream footer state')
Record = collections.namedtuple('Record', 'first count incarnation kind entries payload source slot blocks')
Walked = collections.namedtuple('Walked', 'volume segment fill first end footer')
Snapshot = collections.namedtuple('Snapshot', 'id number epoch automatic created name members')


class Log:
    def __init__(self, log_uuid, volumes):
        self.uuid, self.volumes = log_uuid, volumes
        self.problems = []
        self.replayed = 0
        self.spaces, self.sources, self.snapshots, self.forwards = {}, [], [], []
        self.epoch = 1
        self.table = {}  # (volume, segment) → Segment; those not in it are free
        self.slots = {}  # (volume, segment) → slot entries, once read
        self.root_take()
        self.tree_load()
        if self.clean:
            self.sequence = self.end_sequence
        else:
            self.replay()

    # -- seeds (§4)

    def block_seed(self, fill, slot, v, birth):
        return xxh64(self.uuid + struct.pack('<QQII', fill, v, slot, birth))

    def header_seed(self, fill, incarnation, volume, block):
        return xxh64(self.key + struct.pack('<QQII', fill, incarnation, volume, block))

    # -- roots (§5)

    def root_take(self):
        best, unknown = None, False
        for slot in (0, 1):
            bad = valid = False
            for device in (device for volume in self.volumes.values() for device in volume.there):
                for base in (device.root, device.back + device.root):
                    raw = device.pread(base + slot * BLOCK, BLOCK)
                    if not any(raw):
                        continue
                    where = f'volume {device.id}: root at {base + slot * BLOCK}'
                    magic, major, _, _, incompatible = struct.unpack_from('<IHHQI', raw)
                    if magic != 0x314C5656 or not sealed(raw, 8, 0x56415256):
                        bad = True
                        self.problems.append(f'{where}: damaged')
                    elif major != 1 or incompatible:
                        unknown = True
                    elif raw[32:48] == self.uuid:
                        valid = True
                        if best is None or struct.unpack_from('<Q', raw, 64) > struct.unpack_from('<Q', best, 64):
                            best = raw
            need(valid or not bad, f'both copies of root {"AB"[slot]} are damaged')
        need(best, 'unknown format' if unknown else 'no root of the log')
        flags, = struct.unpack_from('<I', best, 28)
        self.key = best[48:64]
        self.page_seed = xxh64(self.key + self.uuid)
        (self.generation, self.incarnation, self.incarnation_start, self.replay_sequence, self.end_sequence, self.durable, self.next_fill, _, self.leaf_blocks,
         self.height, top, self.page_slots, cuts, _) = struct.unpack_from('<8QIHHIHH', best, 64)
        need(self.leaf_blocks in (16, 32, 64, 128, 256, 512, 1024) and self.height <= 4 and top <= 24 and cuts <= 16, 'root: bounds')
        need(self.replay_sequence <= self.durable, 'root: replay begins behind what is durable')
        self.clean = bool(flags & 1) and self.end_sequence == self.replay_sequence
        self.streams = []
        for stream in (0, 1):
            at = 144 + 64 * stream
            start = struct.unpack_from('<HHIQQ', best, at)
            opened = struct.unpack_from('<HHIQQ', best, at + 24)
            listed, = struct.unpack_from('<H', best, at + 48)
            need(listed <= 64, 'root: list')
            lists = [struct.unpack_from('<HHIQ', best, 512 + 1024 * stream + 16 * i) for i in range(listed)]
            self.streams.append((start, opened, [(volume, segment, fill) for volume, _, segment, fill in lists]))
        self.cuts = {}
        for i in range(cuts):
            _, slot, _, fill, volume, _, segment, follows, _ = struct.unpack_from('<HHIQHHIQQ', best, 2560 + 40 * i)
            self.cuts[fill] = (slot, (volume, segment, follows))
        self.top = [self.node(best, 3200 + 32 * i) for i in range(top)]

    # -- the page tree (§6)

    @staticmethod
    def node(raw, at):
        volume_a, volume_b, block_a, block_b, kind, zero, zeros, checksum, checkpoint = struct.unpack_from('<HHIIBBHQQ', raw, at)
        need(kind <= 4 and not zero and not zeros, 'node: fields')
        return kind, checkpoint, checksum, ((volume_a, block_a), (volume_b, block_b))

    def page(self, node, level):
        kind, checkpoint, checksum, copies = node
        found = None
        for volume, block in copies:
            try:
                need(volume in self.volumes, f'page in volume {volume}, which the log does not have')
                raw = self.volumes[volume].blocks(block)
                need(xxh64(raw, self.page_seed) == checksum, f'volume {volume}: page in block {block} is damaged')
                found = found or raw
            except (Damage, OSError) as problem:
                self.problems.append(str(problem))
        need(found, f'both copies of a page are damaged: {copies}')
        magic, major, its_kind, its_level, its_checkpoint, count, used = struct.unpack_from('<IHBBQHH', found)
        need((magic, major, its_kind, its_level, its_checkpoint) == (0x31505656, 1, kind, level, checkpoint), f'page {copies}: header')
        return found, count, used

    def tree_load(self):
        sizes = [self.page_slots]
        while sizes[-1] > 24:
            sizes.append((sizes[-1] + 126) // 127)
        need(len(sizes) - 1 == self.height and sizes[-1] == len(self.top), 'the page tree does not have the shape that its size gives')
        need(self.page_slots <= 1 << 24, 'more pages than there can be')
        nodes = self.top
        for level in range(self.height, 0, -1):
            below = []
            for node in nodes:
                need(node[0] == 4, 'index: kind')
                raw, count, _ = self.page(node, level)
                need(count == min(127, sizes[level - 1] - len(below)), 'index: count')
                below += [self.node(raw, 32 + 32 * i) for i in range(count)]
            nodes = below
        objects = {}  # (kind, space, key, uid) → (checkpoint, {index: payload}, count, applied)
        for node in nodes:
            kind, checkpoint = node[:2]
            if kind == 0:
                continue
            need(kind < 4, 'page slot: kind')
            raw, count, used = self.page(node, 0)
            at = 32
            for _ in range(count):
                need(at + 40 <= BLOCK, 'fragment: beyond the page')
                its_kind, _, size, index, total, space, _, key, made, its_checkpoint, applied = struct.unpack_from('<BBHHHHHIQQQ', raw, at)
                need(its_kind == kind and at + 40 + size <= BLOCK and index < total and its_checkpoint == checkpoint, 'fragment: fields')
                had = objects.get((kind, space, key, made))
                if had is None or had[0] < checkpoint:
                    had = objects[kind, space, key, made] = (checkpoint, {}, total, applied)
                if had[0] == checkpoint:
                    need(index not in had[1] and had[2] == total, 'fragment: there twice')
                    had[1][index] = raw[at + 40:at + 40 + size]
                at += 40 + ((size + 7) & ~7)
            need(at <= BLOCK and at - 32 == used, 'page: used')
        images = []
        for (kind, space, key, made), (_, parts, total, applied) in sorted(objects.items()):
            if kind == 3 and (space not in self.spaces or self.spaces[space].uid != made):
                continue  # of a space that is gone
            if kind == 2 and key >> 16 not in self.volumes:
                continue
            need(len(parts) == total, f'image {(kind, space, key)}: fragments are missing')
            image = b''.join(parts[i] for i in range(total))
            images.append(kind)
            if kind == 1:
                self.state_read(image)
            elif kind == 2:
                self.table_read(key >> 16, key & 0xFFFF, image)
            else:
                self.spaces[space].leaves[key] = self.leaf_read(image, applied)
        need(images.count(1) == (1 if self.page_slots else 0), 'not exactly one state')

    def state_read(self, raw):
        try:
            version, self.epoch, _, spaces, sources, snapshots, forwards, _ = struct.unpack_from('<8I', raw)
            need(version == 1 and self.epoch, 'state: version')
            at = 32
            for _ in range(spaces):
                number, parent, parent_epoch, made, size, flags, _ = struct.unpack_from('<HHIQdII', raw, at)
                need(number not in self.spaces and not flags & 2, 'state: spaces')
                self.spaces[number] = Space(None if parent == NONE else parent, parent_epoch, made, int(size), bool(flags & 1))
                at += 32
            for space in self.spaces.values():
                if space.parent is not None:
                    self.spaces[space.parent].pins[space.parent_epoch] += 1

            def name(at, length):
                return raw[at:at + length].decode('utf-8'), at + ((length + 7) & ~7)

            for _ in range(sources):
                space, length, number = struct.unpack_from('<HHI', raw, at)
                text, at = name(at + 8, length)
                self.sources.append([number, text, space])
            for _ in range(snapshots):
                number, volume, epoch, flags, created, length, count, _ = struct.unpack_from('<IIIIdHHI', raw, at)
                text, at = name(at + 32, length)
                members = []
                for _ in range(count):
                    space, length, _, size = struct.unpack_from('<HHId', raw, at)
                    source, at = name(at + 16, length)
                    members.append((source, space, int(size)))
                    self.spaces[space].pins[epoch] += 1
                self.snapshots.append(Snapshot(number, volume, epoch, bool(flags & 1), created, text, members))
            for _ in range(forwards):
                self.forwards.append(struct.unpack_from('<IIQ', raw, at))
                at += 16
        except (struct.error, KeyError, UnicodeDecodeError) as problem:
            raise Damage(f'state: {problem!r}')

    def table_read(self, volume, chunk, raw):
        device = self.volumes[volume]
        first = chunk * 128
        need(len(raw) == 24 * min(128, device.segments - first), 'segment table: length')
        for i, (fill, _, used, stream, flags, state, _, _) in enumerate(struct.iter_unpack('<QQHBBBBH', raw)):
            need(state in (0, 3, 4), 'segment table: state')
            if state == 3:
                need(used <= device.segment_blocks and stream < 2 and flags < 2, 'segment table: fields')
                self.table[volume, first + i] = Segment(fill, used, stream, flags == 1, 3)

    def leaf_read(self, raw, applied):
        leaf = Leaf(applied)
        need(len(raw) >= 16, 'leaf: length')
        shape, count, histories, newest, zero = struct.unpack_from('<HHIII', raw)
        need(shape in (1, 2) and not zero and count <= self.leaf_blocks and newest < 0xFFFFFFFF, 'leaf: header')
        bitmap = max(4, self.leaf_blocks // 8)
        size = 12 * count if shape == 1 else bitmap + 8 * count + ((2 * count + 3) & ~3)
        need(len(raw) == 16 + size + 16 * histories, 'leaf: length')

        def believable(volume, block, birth, length=1):
            need(1 <= birth <= newest, 'leaf: birth')
            if volume == HOLE:
                need(block == 0, 'leaf: hole')
            else:
                need(volume in self.volumes, 'leaf: volume')
                need(block + length <= self.volumes[volume].segment_blocks * self.volumes[volume].segments, 'leaf: block')

        if shape == 1:
            runs = list(struct.iter_unpack('<HHII', raw[16:16 + size]))
            for (start, volume, block, birth), end in zip(runs, [run[0] for run in runs[1:]] + [self.leaf_blocks]):
                need(start < end <= self.leaf_blocks, 'leaf: runs')
                if volume == ABSENT:
                    need(block == 0 and birth == 0, 'leaf: absent run')
                    continue
                believable(volume, block, birth, end - start)
                for i in range(start, end):
                    leaf.current[i] = (volume, 0 if volume == HOLE else block + i - start, birth)
        else:
            bits = int.from_bytes(raw[16:16 + bitmap], 'little')
            present = [i for i in range(bitmap * 8) if bits >> i & 1]
            need(len(present) == count and all(i < self.leaf_blocks for i in present), 'leaf: bitmap')
            at = 16 + bitmap
            blocks = struct.unpack_from(f'<{count}I', raw, at)
            births = struct.unpack_from(f'<{count}I', raw, at + 4 * count)
            volumes = struct.unpack_from(f'<{count}H', raw, at + 8 * count)
            for i, volume, block, birth in zip(present, volumes, blocks, births):
                believable(volume, block, birth)
                leaf.current[i] = (volume, block, birth)
        last = (0, 0)
        for i, volume, block, birth, death in struct.iter_unpack('<HHIII', raw[16 + size:]):
            believable(volume, block, birth)
            need(i < self.leaf_blocks and birth < death <= newest and (i > last[0] or (i == last[0] and birth >= last[1])), 'leaf: history')
            need(i not in leaf.current or leaf.current[i][2] >= death, 'leaf: history above the current entry')
            leaf.history.setdefault(i, []).append((birth, death, volume, block))
            last = (i, death)
        return leaf

    # -- segments (§8)

    def header(self, raw, volume, segment, slot, left, fill):
        """The record whose header these 4096 bytes are, with `previous` and `checksum`; None when it is not sound at this place."""
        (magic, major, kind, stream, checksum, first, durable, its_fill, incarnation, previous, its_slot, entries, data, source, _, source_segment, _, _,
         payload) = struct.unpack_from('<IHBBQQQQQQIHHHHIQII', raw)
        if magic != 0x31525656 or kind not in (1, 2, 3, 4) or entries > 160 or 1 + data > left or payload > 3840:
            return None
        if kind != 4 and data > min(entries, 127):
            return None
        if its_slot != slot or its_fill != fill or raw[88:104] != self.uuid:
            return None
        block = segment * self.volumes[volume].segment_blocks + slot
        if not sealed(raw, 8, self.header_seed(fill, incarnation, volume, block)) or major != 1:
            return None
        listed = list(struct.iter_unpack('<BBHIQQ', raw[256:256 + 24 * entries]))
        if kind == 3:
            if entries or data:
                return None
        elif kind == 4:
            if entries or payload:
                return None
        elif payload or sum(entry[0] != 2 for entry in listed) != data:
            return None
        for what, zero, _, birth, place, number in listed:
            if zero or not birth or (place & (1 << 48) - 1) >> 40 or what not in ((1, 2) if kind == 1 else (3,)):
                return None
            if what == 2 and (place & (1 << 48) - 1) + number > 1 << 40:
                return None
        record = Record(first, 1 if kind == 3 else entries, incarnation, kind, listed, raw[256:256 + payload], (source, source_segment), slot, data)
        return record, durable, previous, checksum

    def footer(self, volume, segment, fill):
        """A sound footer's fields and slot entries, or None."""
        device = self.volumes[volume]
        block = segment * device.segment_blocks + device.data_slots
        raw = device.blocks(block, device.footer_blocks)
        (magic, major, stream, _, _, its_fill, incarnation, durable, used, _, next_volume, _, next_segment, _, next_fill, last_header) = struct.unpack_from(
            '<IHBBQQQQHHHHIIQQ', raw)
        if magic != 0x31465656 or used > device.data_slots or stream > 1 or its_fill != fill:
            return None
        if not sealed(raw, 8, self.header_seed(fill, incarnation, volume, block)) or major != 1:
            return None
        entries = list(struct.iter_unpack('<BBHIQQ', raw[96:96 + 24 * used]))
        left, padding = 0, False
        for what, flags, data, birth, place, _ in entries:
            if what == 8 and not left:
                left, padding = data, bool(flags & 4)
            elif padding and what == 0 and left:
                left -= 1
            elif what in (1, 3) and left and birth and not (place & (1 << 48) - 1) >> 40:
                left -= 1
            else:
                return None
        if left:
            return None
        return incarnation, durable, used, (next_volume, next_segment, next_fill), last_header, entries

    def slot_entries(self, volume, segment):
        """Slot → (virtual block, birth, checksum) of what the segment table says is in the segment."""
        if (volume, segment) in self.slots:
            return self.slots[volume, segment]
        state = self.table.get((volume, segment))
        need(state, f'volume {volume}: segment {segment} is free, and referred to')
        device, found = self.volumes[volume], {}
        footer = self.footer(volume, segment, state.fill) if state.footer else None
        if state.footer and not (footer and footer[2] == state.used):
            self.problems.append(f'volume {volume}: footer of segment {segment} is damaged')
            footer = None
        if footer:
            for slot, (what, _, _, birth, place, checksum) in enumerate(footer[5]):
                if what not in (0, 8):
                    found[slot] = (place & (1 << 48) - 1, birth, checksum)
        else:
            slot = 0
            while slot < state.used:
                sound = self.header(device.blocks(segment * device.segment_blocks + slot), volume, segment, slot, state.used - slot, state.fill)
                if not sound:
                    self.problems.append(f'volume {volume}: header in slot {slot} of segment {segment} is damaged')
                    break
                data = [entry for entry in sound[0].entries if entry[0] != 2]
                for i, (_, _, _, birth, place, checksum) in enumerate(data):
                    found[slot + 1 + i] = (place & (1 << 48) - 1, birth, checksum)
                slot += 1 + sound[0].blocks
        self.slots[volume, segment] = found
        return found

    def read(self, v, volume, block, birth, verify=True):
        device = self.volumes[volume]
        segment, slot = divmod(block, device.segment_blocks)
        data = device.blocks(block)
        if verify:
            entry = self.slot_entries(volume, segment).get(slot)
            need(entry and entry[:2] == (v, birth), f'volume {volume}: block {block} is not what virtual block {v} is mapped to')
            seed = self.block_seed(self.table[volume, segment].fill, slot, v, birth)
            need(xxh64(data, seed) == entry[2], f'volume {volume}: block {block} (virtual block {v}) is damaged')
        return data

    # -- recovery (§9)

    def walk(self, stream):
        start, opened, listed = self.streams[stream]
        items, last = [], 0
        volume, slot, segment, fill, chain = start
        if volume == NONE:
            slot, (volume, segment, fill) = 0, listed[0] if listed else (NONE, 0, 0)
        open_fill = None if opened[0] == NONE else opened[3]
        guessed = False
        while volume != NONE:
            need(volume in self.volumes and segment < self.volumes[volume].segments, f'stream {stream}: no segment {segment} in volume {volume}')
            device = self.volumes[volume]
            need(slot <= device.data_slots, f'stream {stream}: start')
            cut = self.cuts.get(fill)
            footer = None
            if not cut:
                first = self.header(device.blocks(segment * device.segment_blocks), volume, segment, 0, device.data_slots, fill)
                if guessed and not (first and first[2] == chain):
                    break
                footer = self.footer(volume, segment, fill)
                if footer and fill == open_fill and footer[0] < self.incarnation:
                    footer = None
                need(not footer or footer[0] <= self.incarnation, f'volume {volume}: footer of segment {segment} is of a life to come')
            guessed = False
            if footer:
                need(slot <= footer[2], f'stream {stream}: start')
                items.append(Walked(volume, segment, fill, slot, footer[2], True))
                self.durable = max(self.durable, footer[1])
                chain, (volume, segment, fill), slot = footer[4], footer[3], 0
                continue
            limit, at = cut[0] if cut else device.data_slots, slot
            need(slot <= limit, f'stream {stream}: start')
            while at < limit:
                sound = self.header(device.blocks(segment * device.segment_blocks + at), volume, segment, at, limit - at, fill)
                if not sound or sound[2] != chain or not last <= sound[0].incarnation <= self.incarnation:
                    break
                beyond = sound[0].first > self.incarnation_start or (fill == open_fill and at >= opened[1])
                if beyond and sound[0].incarnation != self.incarnation:
                    break
                last, chain = sound[0].incarnation, sound[3]
                self.durable = max(self.durable, sound[1])
                at += 1 + sound[0].blocks
            items.append(Walked(volume, segment, fill, slot, at, False))
            for behind in range(at + 1, limit):
                sound = self.header(device.blocks(segment * device.segment_blocks + behind), volume, segment, behind, limit - behind, fill)
                if sound and sound[0].incarnation == self.incarnation:
                    self.durable = max(self.durable, sound[1])
            if cut:
                need(at == limit, f'volume {volume}: segment {segment} ends before its cut')
                volume, segment, fill = cut[1]
            elif at == 0:
                break
            else:
                fills = [open_fill] + [one[2] for one in listed]
                if fill not in fills and fill >= self.next_fill - 256:
                    break
                need(fill in fills, f'volume {volume}: segment {segment} was sealed, and its footer is damaged')
                follower = fills.index(fill)
                volume, segment, fill = listed[follower] if follower < len(listed) else (NONE, 0, 0)
                guessed = True
            slot = 0
        return items

    def probe(self, walks):
        """What lies in listed segments that the walk did not reach tells a break in what was durable from the log's end."""
        for (_, _, listed), items in zip(self.streams, walks):
            for volume, segment, fill in listed:
                if volume not in self.volumes or segment >= self.volumes[volume].segments or any(fill == item.fill for item in items):
                    continue
                device = self.volumes[volume]
                footer = self.footer(volume, segment, fill)
                if footer:
                    self.durable = max(self.durable, footer[1])
                    continue
                slot = 0
                while slot < device.data_slots:
                    sound = self.header(device.blocks(segment * device.segment_blocks + slot), volume, segment, slot, device.data_slots - slot, fill)
                    if not sound:
                        break
                    self.durable = max(self.durable, sound[1])
                    slot += 1 + sound[0].blocks

    def records(self, items):
        """The records of a stream, each with the segment it is in. Ends where a header that a footer vouches for is not sound."""
        for item in items:
            volume, segment, fill, slot, end, by_footer = item
            device = self.volumes[volume]
            entries = self.footer(volume, segment, fill)[5] if by_footer else None
            while slot < end:
                if by_footer:
                    what, flags, data, incarnation, place, first = entries[slot]
                    need(what == 8, f'volume {volume}: no header in slot {slot} of segment {segment}')
                if by_footer and not flags & 1:
                    # u16 source volume, u32 source segment, u16 0
                    source = (place & 0xFFFF, place >> 16 & 0xFFFFFFFF)
                    kind = 4 if flags & 4 else 2 if flags & 2 else 1
                    listed = [] if kind == 4 else entries[slot + 1:slot + 1 + data]
                    record = Record(first, len(listed), incarnation, kind, listed, b'', source, slot, data)
                else:
                    sound = self.header(device.blocks(segment * device.segment_blocks + slot), volume, segment, slot, end - slot, fill)
                    if not sound:
                        return
                    record = sound[0]
                yield item, record
                slot += 1 + record.blocks

    def vouched(self, item, record):
        volume, segment, fill = item[:3]
        base = segment * self.volumes[volume].segment_blocks
        if not self.header(self.volumes[volume].blocks(base + record.slot), volume, segment, record.slot, item.end - record.slot, fill):
            return False
        slot = record.slot + 1
        for what, _, _, birth, place, checksum in record.entries:
            if what == 2:
                continue
            if xxh64(self.volumes[volume].blocks(base + slot), self.block_seed(fill, slot, place & (1 << 48) - 1, birth)) != checksum:
                return False
            slot += 1
        return True

    def replay(self):
        applied, life = self.replay_sequence, 0
        walks = [self.walk(0), self.walk(1)]  # both first: they tell how far the log is durable
        self.probe(walks)
        cursors = [self.records(items) for items in walks]
        heads = [next(cursor, None) for cursor in cursors]
        def used(which, item, record):
            end = record.slot + 1 + record.blocks
            self.table[item.volume, item.segment] = Segment(item.fill, end, which, item.footer and end == item.end, 3)
            heads[which] = next(cursors[which], None)

        while any(heads):
            padding = next((i for i in (0, 1) if heads[i] and heads[i][1].kind == 4 and heads[i][1].first <= applied), None)
            if padding is not None:
                used(padding, *heads[padding])
                continue
            ready = [i for i in (0, 1) if heads[i] and heads[i][1].kind != 4]
            if not ready:
                break  # padding of a tail that is missing
            which = min(ready, key=lambda i: (heads[i][1].first, -heads[i][1].incarnation))
            item, record = heads[which]
            last = applied + record.count
            if record.first != applied + 1 or record.incarnation < life or (last > self.durable and not self.vouched(item, record)):
                heads[which] = None
                continue
            self.apply(item, record)
            applied, life = last, record.incarnation
            self.replayed += record.count
            used(which, item, record)
        need(applied >= self.durable, f'the log ends at {applied}, and was durable up to {self.durable}')
        self.sequence = applied

    # -- what entries do (§10)

    def leaf(self, space, v):
        return space.leaves.setdefault(v // self.leaf_blocks, Leaf())

    @staticmethod
    def retire(space, leaf, i, epoch):
        volume, block, birth = leaf.current.pop(i)
        if birth < epoch and space.pinned(birth, epoch):
            bisect.insort(leaf.history.setdefault(i, []), (birth, epoch, volume, block))

    def apply(self, item, record):
        if record.kind == 3:
            return self.operate(record.payload, record.first)
        place = item.segment * self.volumes[item.volume].segment_blocks + record.slot + 1
        for i, (what, _, number, birth, packed, argument) in enumerate(record.entries):
            v, sequence = packed & (1 << 48) - 1, record.first + i
            if record.kind == 2:
                self.move(number, v, birth, record.source, packed >> 48, (item.volume, place), sequence)
                place += 1
                continue
            need(number in self.spaces and birth == self.epoch, f'entry {sequence}: space or epoch')
            space = self.spaces[number]
            if what == 2:
                need(argument <= 300 * self.leaf_blocks, f'entry {sequence}: trim')
                self.trim(space, v, v + argument, sequence)
                continue
            leaf = self.leaf(space, v)
            if leaf.applied < sequence:
                i = v % self.leaf_blocks
                if i in leaf.current:
                    self.retire(space, leaf, i, birth)
                leaf.current[i] = (item.volume, place, birth)
            place += 1

    def move(self, number, v, birth, source, source_slot, target, sequence):
        for _ in self.forwards:
            if number not in self.spaces:
                number = next((to for start, to, _ in self.forwards if start == number), number)
        space = self.spaces.get(number)
        leaf = space.leaves.get(v // self.leaf_blocks) if space else None
        if not leaf or leaf.applied >= sequence or source[0] not in self.volumes:
            return
        old = (source[0], source[1] * self.volumes[source[0]].segment_blocks + source_slot)
        i = v % self.leaf_blocks
        if leaf.current.get(i) == (*old, birth):
            leaf.current[i] = (*target, birth)
            return
        entries = leaf.history.get(i, [])
        for at, (born, death, *its) in enumerate(entries):
            if born == birth and tuple(its) == old:
                entries[at] = (born, death, *target)

    def chain(self, number, epoch):
        while number is not None:
            space = self.spaces[number]
            yield space, epoch
            number, epoch = space.parent, space.parent_epoch

    def shown(self, number, epoch, index):
        """Everything in one leaf that the space shows at the epoch, parents included: block in leaf → (volume, block, birth)."""
        seen = {}
        for space, at in self.chain(number, epoch):
            if index in space.leaves:
                seen = {**space.leaves[index].visible(at), **seen}
        return seen

    def trim(self, space, start, end, sequence):
        indices = set(space.leaves)
        for below, _ in self.chain(space.parent, space.parent_epoch):
            indices |= set(below.leaves)
        for index in indices:
            first = index * self.leaf_blocks
            if first + self.leaf_blocks <= start or first >= end:
                continue
            leaf = space.leaves.get(index)
            if leaf and leaf.applied >= sequence:
                continue
            under = self.shown(space.parent, space.parent_epoch, index)
            for i in range(max(start - first, 0), min(end - first, self.leaf_blocks)):
                here, below = leaf.current.get(i) if leaf else None, under.get(i)
                if here and here[0] == HOLE:
                    continue
                if here:
                    self.retire(space, leaf, i, self.epoch)
                if below and (here or below[0] != HOLE):
                    leaf = leaf or self.leaf(space, first)
                    leaf.current[i] = (HOLE, 0, self.epoch)

    def relax(self, number):
        while number is not None and not self.spaces[number].current and not +self.spaces[number].pins:
            number = self.destroy(number)

    def destroy(self, number):
        gone = self.spaces.pop(number)
        if gone.parent is not None:
            self.unpin(gone.parent, gone.parent_epoch)
        return gone.parent

    def unpin(self, number, epoch):
        pins = self.spaces[number].pins
        pins[epoch] -= 1
        if not pins[epoch]:
            del pins[epoch]

    def create(self, number, made, parent, parent_epoch, size):
        need(number not in self.spaces and number < 0xFFF0, 'a space that exists is made')
        self.spaces[number] = Space(parent, parent_epoch, made, size, True)
        if parent is not None:
            self.spaces[parent].pins[parent_epoch] += 1

    def snapshot(self, number, volume, only, created, automatic, name):
        members = [(text, space, self.spaces[space].size) for owner, text, space in self.sources if owner == volume and only in (NONE, space)]
        for _, space, _ in members:
            self.spaces[space].pins[self.epoch] += 1
        self.snapshots.append(Snapshot(number, volume, self.epoch, automatic, created, name, members))

    def operate(self, payload, sequence):
        try:
            op, length, a, b, c, d = struct.unpack_from('<HHIdII', payload)
            name = payload[24:24 + length].decode('utf-8')
            made = 24 + ((length + 3) & ~3)
            if op == 1:
                self.create(c, sequence, None, 0, int(b))
                self.sources.append([a, name, c])
            elif op == 2:
                self.snapshot(d, a, c, b, False, name)
                self.epoch += 1
            elif op == 3:
                snapshot = next(one for one in self.snapshots if one.id == a)
                self.snapshots.remove(snapshot)
                for _, space, _ in snapshot.members:
                    self.unpin(space, snapshot.epoch)
                    self.relax(space)
            elif op == 4:
                space = self.spaces[a]
                self.trim(space, -(-int(b) // BLOCK), -(-space.size // BLOCK), sequence)
                space.size = int(b)
            elif op == 5:
                snapshot = next(one for one in self.snapshots if one.id == a)
                self.snapshot(d, snapshot.number, NONE, b, True, name)
                for i, (text, space, size) in enumerate(snapshot.members):
                    number, = struct.unpack_from('<I', payload, made + 4 * i)
                    self.create(number, sequence, space, snapshot.epoch, size)
                    source = next(one for one in self.sources if one[:2] == [snapshot.number, text])
                    left, source[2] = source[2], number
                    self.spaces[left].current = False
                    self.relax(left)
                self.epoch += 1
            elif op == 6:
                self.merge(a, c, sequence)
            elif op == 7:
                self.sources.remove(next(one for one in self.sources if one[2] == a))
                self.spaces[a].current = False
                self.relax(a)
            else:
                raise Damage(f'operation {op}')
        except (struct.error, KeyError, StopIteration, ValueError) as problem:
            raise Damage(f'operation {sequence} cannot be applied: {problem!r}')

    def merge(self, a, c, sequence):
        parent, child = self.spaces[a], self.spaces[c]
        epoch = child.parent_epoch
        need(child.parent == a and not parent.current and parent.pins == {epoch: 1}, 'merge: not allowed')
        for index, from_leaf in parent.leaves.items():
            into = child.leaves.get(index)
            if into and into.applied >= sequence:
                continue
            into = into or self.leaf(child, index * self.leaf_blocks)
            for i, entry in from_leaf.visible(epoch).items():
                births = [one[0] for one in into.history.get(i, [])] + ([into.current[i][2]] if i in into.current else [])
                if not births:
                    into.current[i] = entry
                elif entry[2] < min(births) and child.pinned(entry[2], min(births)):
                    bisect.insort(into.history.setdefault(i, []), (entry[2], min(births), *entry[:2]))
        child.parent, child.parent_epoch = parent.parent, parent.parent_epoch
        del self.spaces[a]
        self.forwards.append((a, c, sequence))

    # -- reading (§7, §8)

    def mapped(self, number, epoch, size):
        """(virtual block, volume, block, birth) of all that a state has as data, in order."""
        blocks = -(-size // BLOCK)
        for index in sorted({index for space, _ in self.chain(number, epoch) for index in space.leaves}):
            for i, entry in sorted(self.shown(number, epoch, index).items()):
                if entry[0] != HOLE and index * self.leaf_blocks + i < blocks:
                    yield (index * self.leaf_blocks + i, *entry)

    def states(self):
        """Every readable state: (what, space, epoch, size)."""
        for number, name, space in self.sources:
            yield f'source {name!r} of volume {number}', space, NOW, self.spaces[space].size
        for snapshot in self.snapshots:
            for name, space, size in snapshot.members:
                yield f'snapshot {snapshot.name!r} of volume {snapshot.number}, source {name!r}', space, snapshot.epoch, size

    def check(self, verify):
        """Verifies each block that a state shows, once; answers how many."""
        seen = set()
        for what, space, epoch, size in self.states():
            for v, volume, block, birth in self.mapped(space, epoch, size):
                if (volume, block) in seen:
                    continue
                seen.add((volume, block))
                try:
                    self.read(v, volume, block, birth, verify)
                except (Damage, OSError) as problem:
                    self.problems.append(f'{what}: {problem}')
        return len(seen)


# ---- the command line -----------------------------------------------------------------------------------------------


def moment(milliseconds):
    time = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=milliseconds)
    return time.isoformat(timespec='milliseconds') + 'Z'


def describe(pool):
    volumes = []
    for record in pool.catalogue['virtualVolumes']:
        log, number = pool.log(record), record['number']
        sources = [{'name': name, 'sizeBytes': log.spaces[space].size} for owner, name, space in log.sources if owner == number]
        snapshots = [{'name': one.name, 'createdAt': moment(one.created), 'automatic': one.automatic,
                      'sources': [{'name': name, 'sizeBytes': size} for name, _, size in one.members]} for one in log.snapshots if one.number == number]
        volumes.append({'name': record['name'], 'sizeBytes': sum(source['sizeBytes'] for source in sources), 'sources': sources, 'snapshots': snapshots,
                        'log': {'uuid': record['log'], 'clean': log.clean, 'incarnation': log.incarnation, 'sequence': log.sequence,
                                'replayedEntries': log.replayed, 'spaces': len(log.spaces), 'storageVolumes': list(log.volumes)}})
    return {'pool': str(uuid.UUID(bytes=pool.id)), 'generation': pool.generation, 'virtualVolumes': volumes}


def find(pool, name, source):
    volume, _, snapshot = name.partition('@')
    record = next((one for one in pool.catalogue['virtualVolumes'] if one['name'] == volume), None)
    need(record, f'no volume {volume!r}')
    log = pool.log(record)
    if snapshot:
        taken = next((one for one in log.snapshots if (one.number, one.name) == (record['number'], snapshot)), None)
        need(taken, f'no snapshot {snapshot!r}')
        members = [(text, space, taken.epoch, size) for text, space, size in taken.members]
    else:
        members = [(text, space, NOW, log.spaces[space].size) for owner, text, space in log.sources if owner == record['number']]
    if source is not None:
        members = [one for one in members if one[0] == source]
    need(members, f'no source {source!r}')
    if len(members) > 1:
        sys.exit('reader: several sources, name one with --source')
    return (log, *members[0][1:])


def extract(pool, name, source, target, verify):
    log, space, epoch, size = find(pool, name, source)
    with open(target, 'wb') as out:
        for v, volume, block, birth in log.mapped(space, epoch, size):
            out.seek(v * BLOCK)
            out.write(log.read(v, volume, block, birth, verify))
        out.truncate(size)


def digest(pool, verify):
    zeroes = bytes(1 << 20)
    found = []
    for record in pool.catalogue['virtualVolumes']:
        log, number = pool.log(record), record['number']
        states = [(None, name, space, NOW, log.spaces[space].size) for owner, name, space in log.sources if owner == number]
        states += [(one.name, name, space, one.epoch, size) for one in log.snapshots if one.number == number for name, space, size in one.members]
        for snapshot, name, space, epoch, size in states:
            sha, at = hashlib.sha256(), 0
            for v, volume, block, birth in [*log.mapped(space, epoch, size), (None, 0, 0, 0)]:
                start = size if v is None else v * BLOCK
                while at < start:
                    sha.update(zeroes[:start - at])
                    at += min(start - at, len(zeroes))
                if v is not None:
                    sha.update(log.read(v, volume, block, birth, verify)[:size - at])
                    at += min(size - at, BLOCK)
            found.append({'volume': record['name'], 'snapshot': snapshot, 'source': name, 'sizeBytes': size, 'sha256': sha.hexdigest()})
    return found


def main(arguments):
    parser = argparse.ArgumentParser(prog='reader.py', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('pool')
    parser.add_argument('verb', choices=['list', 'check', 'extract', 'digest'])
    parser.add_argument('rest', nargs='*')
    parser.add_argument('--json', action='store_true')
    parser.add_argument('--source')
    parser.add_argument('--device', action='append', default=[])
    parser.add_argument('--fast', action='store_true')
    given = parser.parse_intermixed_args(arguments)
    if len(given.rest) != (2 if given.verb == 'extract' else 0):
        parser.error(f'{given.verb}: wrong number of arguments')
    try:
        pool = Pool(given.pool, given.device)
        if given.verb == 'list':
            listing = describe(pool)
            if given.json:
                print(json.dumps(listing))
            else:
                for volume in listing['virtualVolumes']:
                    print(f'{volume["name"]}  {volume["sizeBytes"]} bytes')
                    for snapshot in volume['snapshots']:
                        print(f'{volume["name"]}@{snapshot["name"]}  {snapshot["createdAt"]}')
        elif given.verb == 'digest':
            print(json.dumps(digest(pool, not given.fast)))
        elif given.verb == 'extract':
            extract(pool, given.rest[0], given.source, given.rest[1], not given.fast)
        else:
            problems, blocks = list(pool.problems), 0
            for record in pool.catalogue['virtualVolumes']:
                try:
                    log = pool.log(record)
                    blocks += log.check(not given.fast)
                    problems += log.problems
                except (Damage, OSError) as problem:
                    problems.append(f'volume {record["name"]!r}: {problem}')
            problems = list(dict.fromkeys(problems))
            print(json.dumps({'clean': not problems, 'blocks': blocks, 'problems': problems}) if given.json else '\n'.join(problems or ['clean']))
            return 1 if problems else 0
        return 0
    except (Damage, OSError) as problem:
        print(f'reader: {problem}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
