// `varve/testing`: what helps to test devices and what stands on them.
export { deviceConformance, type ConformanceOptions, type ConformanceRunner, type DeviceUnderTest } from './testing/conformance.ts';
export { FaultDevice, type Fault, type FaultCall } from './device/wrap/fault.ts';
export { TraceDevice, type TraceEvent } from './device/wrap/trace.ts';
export {
  SimulatedDevice,
  type DeviceFault,
  type DeviceImage,
  type FaultKind,
  type SimulatedDeviceOptions,
} from './testing/simulated-device.ts';
export { ReferenceModel } from './testing/model.ts';
export { Random } from './testing/random.ts';
