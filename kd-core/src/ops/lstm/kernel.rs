//! The layer on slices: forward, and backward through time.

use super::super::cpu::{
    Float, Matrix, MatrixMut, Packed, Start, Threads, column_sums, join, matmul, matmul_packed, uninit, vectorized,
};
use super::super::packed::PackedLinear;
use super::cell::{cell, cell_backward};
use super::plan::Plan;

/// One direction's weights as the forward pass reads them.
pub(super) struct Direction<T> {
    /// `(input, 4 · hidden)`.
    ih: Packed<T>,
    /// `(hidden, 4 · hidden)`.
    hh: Packed<T>,
    /// The sum of both biases.
    bias: Vec<T>,
}

impl<T: Float> Direction<T> {
    /// From `(4 · hidden, input)`, `(4 · hidden, hidden)` and the sum of both biases.
    pub(super) fn new(ih: &[T], hh: &[T], bias: &[T]) -> Self {
        let (gates, input, hidden) = (bias.len(), ih.len() / bias.len(), bias.len() / 4);
        let (ih, hh) = (Matrix::new(ih, gates, input, input), Matrix::new(hh, gates, hidden, hidden));
        Self { ih: Packed::new(ih.t()), hh: Packed::new(hh.t()), bias: bias.to_vec() }
    }

    fn sizes(&self) -> (usize, usize) {
        (self.ih.sizes().0, self.hh.sizes().0)
    }
}

/// One direction's weights as the backward pass reads them: `(4 · hidden, input)` and `(4 · hidden, hidden)`.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a, T> {
    pub(super) ih: &'a [T],
    pub(super) hh: &'a [T],
}

/// Gradients of one direction's weights; that of either bias is the same.
pub(super) struct WeightGradients<T> {
    pub(super) ih: Vec<T>,
    pub(super) hh: Vec<T>,
    pub(super) bias: Vec<T>,
}

/// What a direction's backward pass needs besides inputs and outputs, by packed row.
pub(super) struct Saved<T> {
    /// Activated gates i, f, g, o: `(rows, 4 · hidden)`.
    gates: Vec<T>,
    /// `(rows, hidden)`.
    cells: Vec<T>,
}

/// Large products may use more than the two threads that the directions use.
fn threads() -> Threads {
    if rayon::current_num_threads() > 2 { Threads::All } else { Threads::One }
}

/// Sequences, on average over the steps, from which a step multiplies its own inputs instead of all steps' at once: then
/// the gates stay in the cache from there to the end of the step, and the weights are read at every step.
const MANY: usize = 8;

/// States `(padded rows, 2 · hidden)`, and if `keep` what the backward pass needs.
pub(super) fn forward<T: Float>(
    plan: &Plan,
    xs: &[T],
    directions: [&Direction<T>; 2],
    keep: bool,
) -> (Vec<T>, [Saved<T>; 2]) {
    let [first, second] = directions;
    let ((states0, saved0), (states1, saved1)) =
        join(|| run(plan, &plan.rows[0], xs, first, keep), || run(plan, &plan.rows[1], xs, second, keep));
    (in_place(plan, first.sizes().1, [&states0, &states1]), [saved0, saved1])
}

/// The cells of all sequences of a step, as many as `gates` has rows.
fn activate<T: Float>(gates: &mut [T], cells: &mut [T], states: &mut [T], hidden: usize) {
    vectorized(
        #[inline(always)]
        || {
            let rows = gates.chunks_exact_mut(4 * hidden).zip(cells.chunks_exact_mut(hidden));
            for ((gates, cells), states) in rows.zip(states.chunks_exact_mut(hidden)) {
                cell(gates, cells, states);
            }
        },
    );
}

/// The packed states of both directions at their padded rows, side by side.
fn in_place<T: Float>(plan: &Plan, hidden: usize, states: [&Vec<T>; 2]) -> Vec<T> {
    let len = plan.padded_rows * 2 * hidden;
    // SAFETY: without padding, the loop writes every row.
    let mut out = if plan.total() == plan.padded_rows { unsafe { uninit(len) } } else { vec![T::zero(); len] };
    for (direction, (rows, states)) in plan.rows.iter().zip(states).enumerate() {
        for (&row, state) in rows.iter().zip(states.chunks_exact(hidden)) {
            out[(2 * row + direction) * hidden..][..hidden].copy_from_slice(state);
        }
    }
    out
}

/// As [`forward`] without a backward pass, in the precision of `directions`: each a map of input and past state together,
/// `(4 · hidden, input + hidden)`.
pub(super) fn forward_rounded(plan: &Plan, xs: &[f32], directions: [&PackedLinear; 2], hidden: usize) -> Vec<f32> {
    let run = |direction: usize| run_rounded(plan, &plan.rows[direction], xs, directions[direction], hidden);
    let (states0, states1) = join(|| run(0), || run(1));
    in_place(plan, hidden, [&states0, &states1])
}

fn run_rounded(plan: &Plan, rows: &[usize], xs: &[f32], weights: &PackedLinear, hidden: usize) -> Vec<f32> {
    let (width, alive) = (weights.in_width(), plan.alive());
    let input = width - hidden;
    let mut inputs = vec![0.0; alive * width]; // with the past state behind the input, 0 at first
    let (mut gates, mut cells) = (vec![0.0; alive * 4 * hidden], vec![0.0; alive * hidden]);
    let mut states = vec![0.0; plan.total() * hidden];
    for step in 0..plan.steps() {
        let at = plan.step(step);
        let (past_states, states) = states.split_at_mut(at.start * hidden);
        for (idx, (&row, inputs)) in rows[at.clone()].iter().zip(inputs.chunks_exact_mut(width)).enumerate() {
            let (x, past) = inputs.split_at_mut(input);
            x.copy_from_slice(&xs[row * input..(row + 1) * input]);
            if step > 0 {
                past.copy_from_slice(&past_states[(plan.step(step - 1).start + idx) * hidden..][..hidden]);
            }
        }
        let gates = &mut gates[..at.len() * 4 * hidden];
        weights.product(gates, &inputs[..at.len() * width], at.len());
        activate(gates, &mut cells, states, hidden);
    }
    states
}

/// What is not kept for a backward pass has room for one step only.
fn run<T: Float>(plan: &Plan, rows: &[usize], xs: &[T], weights: &Direction<T>, keep: bool) -> (Vec<T>, Saved<T>) {
    let ((input, hidden), total) = (weights.sizes(), plan.total());
    let at_once = total < MANY * plan.steps();
    let room = |whole: bool| if whole { total } else { plan.alive() };
    // SAFETY: each step writes its rows.
    let (mut gates, mut states) =
        unsafe { (uninit::<T>(room(keep || at_once) * 4 * hidden), uninit::<T>(total * hidden)) };
    let mut cells = vec![T::zero(); room(keep) * hidden];
    let mut inputs = Vec::new();
    let mut project = |gates: &mut [T], rows: &[usize]| {
        gather(&mut inputs, xs, input, rows);
        let target = MatrixMut::new(gates, rows.len(), 4 * hidden, 4 * hidden);
        let inputs = Matrix::new(&inputs, rows.len(), input, input);
        matmul_packed(target, inputs, &weights.ih, Start::Bias(&weights.bias), threads());
    };
    if at_once {
        project(&mut gates, rows);
    }
    for step in 0..plan.steps() {
        let at = plan.step(step);
        let first = if keep || at_once { at.start } else { 0 };
        let gates = &mut gates[first * 4 * hidden..(first + at.len()) * 4 * hidden];
        if !at_once {
            project(gates, &rows[at.clone()]);
        }
        let (past_states, states) = states.split_at_mut(at.start * hidden);
        if step > 0 {
            let before = plan.step(step - 1).start;
            let past = Matrix::new(&past_states[before * hidden..], at.len(), hidden, hidden);
            let target = MatrixMut::new(gates, at.len(), 4 * hidden, 4 * hidden);
            matmul_packed(target, past, &weights.hh, Start::Out, Threads::One);
            if keep {
                cells.copy_within(before * hidden..(before + at.len()) * hidden, at.start * hidden);
            }
        }
        let first = if keep { at.start } else { 0 };
        let cells = &mut cells[first * hidden..(first + at.len()) * hidden];
        activate(gates, cells, states, hidden);
    }
    (states, Saved { gates, cells })
}

/// Gradients of the padded inputs (if asked for) and of both directions' weights.
#[allow(clippy::too_many_arguments)]
pub(super) fn backward<T: Float>(
    plan: &Plan,
    xs: &[T],
    weights: [Weights<'_, T>; 2],
    hidden: usize,
    saved: &[Saved<T>; 2],
    states: &[T],
    d_states: &[T],
    with_inputs: bool,
) -> (Option<Vec<T>>, [WeightGradients<T>; 2]) {
    let work = |direction: usize| {
        let padded = Padded { states, d_states, direction, hidden };
        run_backward(plan, xs, weights[direction], &saved[direction], padded, with_inputs)
    };
    let ((d_packed0, d_first), (d_packed1, d_second)) = join(|| work(0), || work(1));
    let d_xs = with_inputs.then(|| {
        let input = weights[0].ih.len() / (4 * hidden);
        let mut d_xs = vec![T::zero(); plan.padded_rows * input];
        for (rows, d_packed) in plan.rows.iter().zip([&d_packed0, &d_packed1]) {
            for (&row, d_packed) in rows.iter().zip(d_packed.chunks_exact(input)) {
                add(&mut d_xs[row * input..(row + 1) * input], d_packed);
            }
        }
        d_xs
    });
    (d_xs, [d_first, d_second])
}

/// The layer's outputs and their gradients, `(padded rows, 2 · hidden)`.
#[derive(Clone, Copy)]
struct Padded<'a, T> {
    states: &'a [T],
    d_states: &'a [T],
    direction: usize,
    hidden: usize,
}

fn run_backward<T: Float>(
    plan: &Plan,
    xs: &[T],
    weights: Weights<'_, T>,
    saved: &Saved<T>,
    padded: Padded<'_, T>,
    with_inputs: bool,
) -> (Vec<T>, WeightGradients<T>) {
    let (hidden, total, alive) = (padded.hidden, plan.total(), plan.alive());
    let input = weights.ih.len() / (4 * hidden);
    let rows = &plan.rows[padded.direction];
    let own = |row: usize| (2 * row + padded.direction) * hidden..(2 * row + padded.direction + 1) * hidden;
    let hh = Packed::new(Matrix::new(weights.hh, 4 * hidden, hidden, hidden));
    // SAFETY: each step writes its rows.
    let mut d_gates = unsafe { uninit::<T>(total * 4 * hidden) };
    // Sequences that end at a step start from the zeros that are still there.
    let (mut d_state, mut d_cell) = (vec![T::zero(); alive * hidden], vec![T::zero(); alive * hidden]);
    let origin = vec![T::zero(); hidden];
    for step in (0..plan.steps()).rev() {
        let at = plan.step(step);
        vectorized(
            #[inline(always)]
            || {
                for (idx, row) in at.clone().enumerate() {
                    let past_cell = match step {
                        0 => &origin,
                        _ => &saved.cells[(plan.step(step - 1).start + idx) * hidden..],
                    };
                    cell_backward(
                        &saved.gates[row * 4 * hidden..],
                        past_cell,
                        &saved.cells[row * hidden..],
                        &padded.d_states[own(rows[row])],
                        &d_state[idx * hidden..],
                        &mut d_cell[idx * hidden..(idx + 1) * hidden],
                        &mut d_gates[row * 4 * hidden..],
                    );
                }
            },
        );
        if step > 0 {
            let d_gates = &d_gates[at.start * 4 * hidden..at.end * 4 * hidden];
            let d_state = &mut d_state[..at.len() * hidden];
            let target = MatrixMut::new(d_state, at.len(), hidden, hidden);
            matmul_packed(
                target,
                Matrix::new(d_gates, at.len(), 4 * hidden, 4 * hidden),
                &hh,
                Start::Zero,
                Threads::One,
            );
        }
    }
    let mut packed = Vec::new();
    gather(&mut packed, xs, input, rows);
    let gates = Matrix::new(&d_gates, total, 4 * hidden, 4 * hidden);
    let inputs = Matrix::new(&packed, total, input, input);
    // SAFETY: the products write every value.
    let (mut ih, mut hh) = unsafe { (uninit::<T>(4 * hidden * input), uninit::<T>(4 * hidden * hidden)) };
    matmul(MatrixMut::new(&mut ih, 4 * hidden, input, input), T::one(), gates.t(), inputs, threads());
    let mut past_states: Vec<T> = Vec::with_capacity((total - alive) * hidden);
    for step in 1..plan.steps() {
        let before = plan.step(step - 1).start;
        for &row in &rows[before..before + plan.step(step).len()] {
            past_states.extend_from_slice(&padded.states[own(row)]);
        }
    }
    let later = Matrix::new(&d_gates[alive * 4 * hidden..], total - alive, 4 * hidden, 4 * hidden);
    let past = Matrix::new(&past_states, total - alive, hidden, hidden);
    matmul(MatrixMut::new(&mut hh, 4 * hidden, hidden, hidden), T::one(), later.t(), past, threads());
    let d_weights = WeightGradients { ih, hh, bias: column_sums(&d_gates, 4 * hidden) };
    if !with_inputs {
        return (Vec::new(), d_weights);
    }
    let mut d_packed = packed; // the inputs are not needed any more
    let ih = Matrix::new(weights.ih, 4 * hidden, input, input);
    matmul(MatrixMut::new(&mut d_packed, total, input, input), T::one(), gates, ih, threads());
    (d_packed, d_weights)
}

/// Fills `packed` with the given rows of `values`.
fn gather<T: Float>(packed: &mut Vec<T>, values: &[T], width: usize, rows: &[usize]) {
    packed.clear();
    for &row in rows {
        packed.extend_from_slice(&values[row * width..(row + 1) * width]);
    }
}

fn add<T: Float>(sums: &mut [T], values: &[T]) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}
