// One time step of both directions of an LSTM; the products are cuBLAS's.
//
// Step s of the first direction is position s, of the second position len - 1 - s. States and what is kept stand by direction
// and step. Behind a sequence's end states and gradients are 0.
#undef THREADS
#define THREADS 128

template <class V> __device__ V sigmoid(V x) { return 1 / (1 + exponential(-x)); }

// projected: (batch, len, 2, 4, hidden) without bias; recurrent: (2, batch, 4, hidden) or null in the first step.
// states: (2, len + 1, batch, hidden), of which step s reads s and writes s + 1; cells likewise; gates: (2, len, batch, 4, hidden).
template <class T>
__device__ void lstm_step(const T* projected, const T* recurrent, const A<T>* bias, const unsigned* lengths, T* states,
                          T* cells, T* gates, T* y, int s, int batch, int len, int hidden) {
    typedef A<T> V;
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= 2 * batch * hidden) return;
    int j = at % hidden, b = at / hidden % batch, direction = at / hidden / batch;
    int t = direction == 0 ? s : len - 1 - s;
    const T* from = projected + (((long long)b * len + t) * 2 + direction) * 4 * hidden + j;
    V u[4];
#pragma unroll
    for (int gate = 0; gate < 4; gate++) {
        u[gate] = load(from[gate * hidden]) + bias[(direction * 4 + gate) * hidden + j];
        if (recurrent) u[gate] += load(recurrent[((long long)(direction * batch + b) * 4 + gate) * hidden + j]);
    }
    u[0] = sigmoid(u[0]);
    u[1] = sigmoid(u[1]);
    u[2] = hyperbolic_tangent(u[2]);
    u[3] = sigmoid(u[3]);
    long long past = ((long long)(direction * (len + 1) + s) * batch + b) * hidden + j, now = past + (long long)batch * hidden;
    bool alive = t < lengths[b];
    V cell = alive ? u[1] * load(cells[past]) + u[0] * u[2] : 0;
    V state = alive ? u[3] * hyperbolic_tangent(cell) : 0;
    store(cells[now], cell);
    store(states[now], state);
    store(y[(((long long)b * len + t) * 2 + direction) * hidden + j], state);
    T* kept = gates + ((long long)(direction * len + s) * batch + b) * 4 * hidden + j;
#pragma unroll
    for (int gate = 0; gate < 4; gate++) store(kept[gate * hidden], u[gate]);
}
FOR_EACH_FLOAT(lstm_step, (const T* projected, const T* recurrent, const V* bias, const unsigned* lengths, T* states,
                           T* cells, T* gates, T* y, int s, int batch, int len, int hidden),
               (projected, recurrent, bias, lengths, states, cells, gates, y, s, batch, len, hidden))

// d_state: (2, batch, hidden), the gradient that came from step s + 1, or null in the last step; d_cell likewise is read and
// written. d_gates: (2, len, batch, 4, hidden), of which this step is written, and d_projected, the same by position.
template <class T>
__device__ void lstm_step_backward(const T* dy, const T* d_state, A<T>* d_cell, const unsigned* lengths, const T* cells,
                                   const T* gates, T* d_gates, T* d_projected, int s, int batch, int len, int hidden) {
    typedef A<T> V;
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= 2 * batch * hidden) return;
    int j = at % hidden, b = at / hidden % batch, direction = at / hidden / batch;
    int t = direction == 0 ? s : len - 1 - s;
    long long past = ((long long)(direction * (len + 1) + s) * batch + b) * hidden + j, now = past + (long long)batch * hidden;
    long long gate_at = ((long long)(direction * len + s) * batch + b) * 4 * hidden + j;
    V d[4] = {0, 0, 0, 0}, carried = 0;
    if (t < lengths[b]) {
        V i = load(gates[gate_at]), f = load(gates[gate_at + hidden]), g = load(gates[gate_at + 2 * hidden]),
          o = load(gates[gate_at + 3 * hidden]);
        V dh = load(dy[(((long long)b * len + t) * 2 + direction) * hidden + j]);
        if (d_state) dh += load(d_state[at]);
        V squashed = hyperbolic_tangent(load(cells[now]));
        V dc = dh * o * (1 - squashed * squashed);
        if (d_state) dc += d_cell[at];
        d[0] = dc * g * i * (1 - i);
        d[1] = dc * load(cells[past]) * f * (1 - f);
        d[2] = dc * i * (1 - g * g);
        d[3] = dh * squashed * o * (1 - o);
        carried = dc * f;
    }
    d_cell[at] = carried;
    T* to = d_projected + (((long long)b * len + t) * 2 + direction) * 4 * hidden + j;
#pragma unroll
    for (int gate = 0; gate < 4; gate++) {
        store(d_gates[gate_at + gate * hidden], d[gate]);
        store(to[gate * hidden], d[gate]);
    }
}
FOR_EACH_FLOAT(lstm_step_backward, (const T* dy, const T* d_state, V* d_cell, const unsigned* lengths, const T* cells,
                                    const T* gates, T* d_gates, T* d_projected, int s, int batch, int len, int hidden),
               (dy, d_state, d_cell, lengths, cells, gates, d_gates, d_projected, s, batch, len, hidden))
