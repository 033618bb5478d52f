// How a kernel finds its arguments: 32-bit words behind the head of its step.
import { StepField } from "../codes";

// @ts-ignore: decorator
@inline
export function word(step: usize, index: i32): u32 {
  return load<u32>(step + (index << 2), StepField.arguments);
}

// @ts-ignore: decorator
@inline
export function real(step: usize, index: i32): f32 {
  return load<f32>(step + (index << 2), StepField.arguments);
}

// @ts-ignore: decorator
@inline
export function ceilDiv(a: u32, b: u32): u32 {
  return (a + b - 1) / b;
}
