//! One token of one direction: gates to cell and state, and back.

use super::super::cpu::Float;

/// Activates the gates in place, turns the past cell into the new one, and writes the new state.
#[inline(always)]
pub(super) fn cell<T: Float>(gates: &mut [T], cell: &mut [T], state: &mut [T]) {
    let hidden = state.len();
    let (i, rest) = gates.split_at_mut(hidden);
    let (f, rest) = rest.split_at_mut(hidden);
    let (g, o) = rest.split_at_mut(hidden);
    map(i, T::sigmoid);
    map(f, T::sigmoid);
    map(g, T::tanh);
    map(o, T::sigmoid);
    new_cell(i, f, g, cell);
    state.copy_from_slice(cell);
    map(state, T::tanh);
    scale(state, o);
}

// Loops over few slices, each an argument of its own: that is what the compiler can vectorise.

#[inline(always)]
fn map<T: Float>(values: &mut [T], f: impl Fn(T) -> T) {
    values.iter_mut().for_each(|x| *x = f(*x));
}

#[inline(always)]
fn scale<T: Float>(values: &mut [T], factors: &[T]) {
    values.iter_mut().zip(factors).for_each(|(x, &factor)| *x *= factor);
}

#[inline(always)]
fn new_cell<T: Float>(i: &[T], f: &[T], g: &[T], cell: &mut [T]) {
    let hidden = cell.len();
    let (i, f, g) = (&i[..hidden], &f[..hidden], &g[..hidden]);
    for j in 0..hidden {
        cell[j] = f[j] * cell[j] + i[j] * g[j];
    }
}

/// Writes the gradients of the gates before their activations; turns `d_cell` into the gradient of the past cell.
#[inline(always)]
pub(super) fn cell_backward<T: Float>(
    gates: &[T],
    past_cell: &[T],
    cell: &[T],
    d_out: &[T],
    d_state: &[T],
    d_cell: &mut [T],
    d_gates: &mut [T],
) {
    let hidden = d_cell.len();
    let (i, rest) = gates.split_at(hidden);
    let (f, rest) = rest.split_at(hidden);
    let (g, o) = (&rest[..hidden], &rest[hidden..2 * hidden]);
    let (d_i, rest) = d_gates.split_at_mut(hidden);
    let (d_f, rest) = rest.split_at_mut(hidden);
    let (d_g, rest) = rest.split_at_mut(hidden);
    let d_o = &mut rest[..hidden];
    d_o.copy_from_slice(&cell[..hidden]);
    map(d_o, T::tanh);
    through_state(o, d_out, d_state, d_o, d_cell);
    through_input(i, g, d_cell, d_i, d_g);
    through_past(f, past_cell, d_f, d_cell);
}

/// `h = o · tanh(c)`: adds to the cell's gradient, and turns `tanh(c)` into the gradient of the output gate.
#[inline(always)]
fn through_state<T: Float>(o: &[T], d_out: &[T], d_state: &[T], tanh_d_o: &mut [T], d_cell: &mut [T]) {
    let (hidden, one) = (d_cell.len(), T::one());
    let (o, d_out, d_state, tanh_d_o) = (&o[..hidden], &d_out[..hidden], &d_state[..hidden], &mut tanh_d_o[..hidden]);
    for j in 0..hidden {
        let tanh = tanh_d_o[j];
        let d_h = (d_out[j] + d_state[j]) * o[j];
        d_cell[j] += d_h * (one - tanh * tanh);
        tanh_d_o[j] = d_h * tanh * (one - o[j]);
    }
}

/// The part `i · g` of the cell.
#[inline(always)]
fn through_input<T: Float>(i: &[T], g: &[T], d_cell: &[T], d_i: &mut [T], d_g: &mut [T]) {
    let (hidden, one) = (d_cell.len(), T::one());
    let (i, g, d_i, d_g) = (&i[..hidden], &g[..hidden], &mut d_i[..hidden], &mut d_g[..hidden]);
    for j in 0..hidden {
        d_i[j] = d_cell[j] * g[j] * i[j] * (one - i[j]);
        d_g[j] = d_cell[j] * i[j] * (one - g[j] * g[j]);
    }
}

/// The part `f · past` of the cell; turns the cell's gradient into that of the past cell.
#[inline(always)]
fn through_past<T: Float>(f: &[T], past_cell: &[T], d_f: &mut [T], d_cell: &mut [T]) {
    let (hidden, one) = (d_cell.len(), T::one());
    let (f, past_cell, d_f) = (&f[..hidden], &past_cell[..hidden], &mut d_f[..hidden]);
    for j in 0..hidden {
        let d = d_cell[j] * f[j];
        d_f[j] = d * past_cell[j] * (one - f[j]);
        d_cell[j] = d;
    }
}
