import { describe, expect, it } from 'vitest';
import { VarveError } from '../../src/errors.ts';
import { decodeError, encodeError } from '../../src/opfs/wire.ts';

describe('an error on its way to a client', () => {
  it('keeps code, place and message, and what its cause says', () => {
    const cause = new Error('EIO');
    const error = new VarveError('VARVE_IO', "write of 'v'", { volume: 1, block: 17, cause });
    const came = decodeError(encodeError(error));
    expect(came).toMatchObject({ code: 'VARVE_IO', doing: "write of 'v'", volume: 1, block: 17 });
    expect(came.message).toBe("write of 'v': a storage device failed (EIO) (storage volume 1, block 17)");
    expect(decodeError(encodeError(new VarveError('VARVE_CLOSED', 'a call'))).message).toBe('a call: it is closed');
    expect(decodeError(encodeError(new RangeError('too far')))).toEqual(new RangeError('too far'));
  });
});
