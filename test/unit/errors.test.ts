import { describe, expect, it } from 'vitest';
import { errorFromCore, isVarveError, messageOf, VarveError } from '../../src/errors.ts';

describe('a VarveError', () => {
  it('says what was being done, what is wrong and where, and keeps the cause', () => {
    const cause = new Error('EIO');
    const error = new VarveError('VARVE_IO', "read of 4096 bytes at 0 of 'db'", { cause, volume: 3, block: 17 });
    expect(error.message).toBe("read of 4096 bytes at 0 of 'db': a storage device failed (storage volume 3, block 17)");
    expect(error).toMatchObject({ name: 'VarveError', code: 'VARVE_IO', doing: "read of 4096 bytes at 0 of 'db'", volume: 3, block: 17 });
    expect(error.cause).toBe(cause);
    expect(error).toBeInstanceOf(Error);
  });

  it('has no cause where there is none', () => {
    expect('cause' in new VarveError('VARVE_CLOSED', 'x')).toBe(false);
  });

  it('may say in detail what is wrong', () => {
    expect(new VarveError('VARVE_NOT_FOUND', 'rollback', { detail: "there is no snapshot 'a'" }).message).toBe(
      "rollback: there is no snapshot 'a'",
    );
  });

  it('is known by its code, also when another copy of the library made it', () => {
    const other = Object.assign(new Error('x'), { code: 'VARVE_FENCED' });
    expect(isVarveError(other)).toBe(true);
    expect(isVarveError(other, 'VARVE_FENCED')).toBe(true);
    expect(isVarveError(other, 'VARVE_IO')).toBe(false);
    expect(isVarveError(Object.assign(new Error('x'), { code: 'ENOENT' }))).toBe(false);
    expect(isVarveError({ code: 'VARVE_IO' })).toBe(false);
    expect(isVarveError(undefined)).toBe(false);
  });
});

describe('a failure of the core', () => {
  it('becomes the error with its code', () => {
    const codes = Array.from({ length: 14 }, (_, failure) => {
      const error = errorFromCore(failure, 'x');
      return error instanceof VarveError ? error.code : error.name;
    });
    expect(codes).toEqual([
      'VARVE_INTERNAL',
      'VARVE_NO_SPACE',
      'VARVE_CORRUPT',
      'VARVE_IO',
      'VARVE_FENCED',
      'VARVE_LOCKED',
      'VARVE_NOT_FOUND',
      'VARVE_EXISTS',
      'VARVE_LIMIT',
      'VARVE_READ_ONLY',
      'VARVE_CLOSED',
      'RangeError',
      'VARVE_BUSY',
      'VARVE_UNSUPPORTED',
    ]);
  });

  it('of an unknown number is a bug', () => {
    expect(errorFromCore(99, 'x')).toMatchObject({ code: 'VARVE_INTERNAL', message: /99/ });
  });

  it('keeps place and cause', () => {
    expect(errorFromCore(2, 'check', { volume: 1, block: 2 }, 'why')).toMatchObject({ volume: 1, block: 2, cause: 'why' });
  });
});

describe('messageOf', () => {
  it('takes whatever was thrown', () => {
    expect(messageOf(new Error('a'))).toBe('a');
    expect(messageOf('b')).toBe('b');
    expect(messageOf(undefined)).toBe('undefined');
  });

  it('adds the cause where that says more, down to the innermost', () => {
    const system = new Error('EFBIG: file too large, write');
    const device = new VarveError('VARVE_IO', 'write of 1 byte at 0', { detail: system.message, cause: system });
    const open = new VarveError('VARVE_IO', 'open', { cause: device });
    expect(messageOf(open)).toBe('open: a storage device failed (write of 1 byte at 0: EFBIG: file too large, write)');
    expect(messageOf(new Error('a', { cause: new Error('b', { cause: 'c' }) }))).toBe('a (b (c))');
    expect(messageOf(new VarveError('VARVE_BUSY', 'w', { detail: `it waits: ${messageOf(open)}`, cause: open }))).toBe(
      `w: it waits: ${messageOf(open)}`,
    );
  });

  it('comes to an end with causes that go round in a circle', () => {
    const error = new Error('a');
    error.cause = new Error('b', { cause: error });
    expect(messageOf(error)).toContain('a (b');
  });
});
