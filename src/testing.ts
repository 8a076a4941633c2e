// `varve/testing`: what helps to test devices and what stands on them.
export { deviceConformance, type ConformanceOptions, type ConformanceRunner, type DeviceUnderTest } from './testing/conformance.ts';
export { FaultDevice, type Fault, type FaultCall } from './device/wrap/fault.ts';
export { TraceDevice, type TraceEvent } from './device/wrap/trace.ts';
export {
  BlockArena,
  SimulatedDevice,
  type DeviceFault,
  type DeviceImage,
  type FaultKind,
  type SimulatedDeviceOptions,
} from './testing/simulated-device.ts';
export {
  Candidates,
  ReferenceModel,
  type Assignment,
  type Candidate,
  type Change,
  type ModelSnapshot,
  type ModelSource,
  type Observation,
  type Piece,
  type Probe,
} from './testing/model.ts';
export { Random } from './testing/random.ts';
