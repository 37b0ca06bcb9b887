// A linear-chain CRF in double, a block for each sequence and a thread for each class: partition * log Z + path * s(labels).
#undef THREADS
#define THREADS 64

// As many classes have the arrays that a block shares.
#define CLASSES 64

// log of the sum of exponentials of `count` values, which `at` gives.
template <class F> __device__ double log_sum(int count, F at) {
    double max = nothing(0.0), sum = 0;
    for (int i = 0; i < count; i++) max = larger(max, at(i));
    if (max == nothing(0.0)) max = 0; // Of impossible values alone the sum is 0, with a NaN among them NaN.
    for (int i = 0; i < count; i++) sum += exponential(at(i) - max);
    return max + logarithm(sum);
}

// The first row of sequence i is starts[i]. alphas: (rows, classes). labels may be null where path is 0.
template <class T>
__device__ void crf_scores(const T* emissions, const T* transitions, const unsigned* starts, const unsigned* labels,
                           T* scores, double* alphas, int classes, double partition, double path) {
    __shared__ double alpha[CLASSES], next[CLASSES];
    int j = threadIdx.x;
    long long first = starts[blockIdx.x], behind = starts[blockIdx.x + 1];
    double score = 0;
    if (path != 0) {
        for (long long t = first + j; t < behind; t += blockDim.x) {
            unsigned label = labels[t];
            if (label >= classes || (t > first && labels[t - 1] >= classes)) {
                score = nothing(0.0) * 0;
                break;
            }
            double from = t == first ? load(transitions[classes * classes + label])
                                     : load(transitions[labels[t - 1] * classes + label]);
            score += load(emissions[t * classes + label]) + from;
            if (t + 1 == behind) score += load(transitions[(classes + 1) * classes + label]);
        }
        score = path * over_row<Sum>(score);
    }
    if (partition != 0 && behind > first) {
        for (long long t = first; t < behind; t++) {
            if (j < classes) {
                double sum = t == first ? (double)load(transitions[classes * classes + j])
                                        : log_sum(classes, [&](int i) { return alpha[i] + load(transitions[i * classes + j]); });
                next[j] = sum + load(emissions[t * classes + j]);
            }
            __syncthreads();
            if (j < classes) {
                alpha[j] = next[j];
                alphas[t * classes + j] = next[j];
            }
            __syncthreads();
        }
        if (j == 0)
            score += partition * log_sum(classes, [&](int i) { return alpha[i] + load(transitions[(classes + 1) * classes + i]); });
    }
    if (j == 0) store(scores[blockIdx.x], (A<T>)score);
}
FOR_EACH_FLOAT(crf_scores, (const T* emissions, const T* transitions, const unsigned* starts, const unsigned* labels,
                            T* scores, double* alphas, int classes, double partition, double path),
               (emissions, transitions, starts, labels, scores, alphas, classes, partition, path))

// partial: (sequences, (classes + 2) * classes).
template <class T>
__device__ void crf_scores_backward(const T* emissions, const T* transitions, const unsigned* starts,
                                    const unsigned* labels, const double* alphas, const T* d_scores, T* d_emissions,
                                    double* partial, int classes, double partition, double path) {
    __shared__ double pairs[CLASSES * CLASSES], beta[CLASSES];
    int i = threadIdx.x;
    long long first = starts[blockIdx.x], behind = starts[blockIdx.x + 1];
    double d = load(d_scores[blockIdx.x]), d_path = d * path, d_partition = d * partition;
    double at_start = 0, at_end = 0, log_partition = 0;
    for (int at = i; at < classes * classes; at += blockDim.x) pairs[at] = 0;
    if (d_partition != 0 && behind > first)
        log_partition = log_sum(classes, [&](int k) {
            return alphas[(behind - 1) * classes + k] + load(transitions[(classes + 1) * classes + k]);
        });
    if (i < classes) beta[i] = load(transitions[(classes + 1) * classes + i]);
    __syncthreads();
    for (long long t = behind - 1; t >= first; t--) {
        double past = 0;
        if (i < classes) {
            double p = d_partition != 0 ? exponential(alphas[t * classes + i] + beta[i] - log_partition) * d_partition : 0;
            if (t + 1 == behind) at_end += p;
            if (t == first) at_start += p;
            if (d_path != 0 && labels[t] == i) p += d_path;
            store(d_emissions[t * classes + i], (A<T>)p);
            if (t > first && d_partition != 0) {
                auto step = [&](int j) {
                    return load(transitions[i * classes + j]) + load(emissions[t * classes + j]) + beta[j];
                };
                past = log_sum(classes, step);
                double before = alphas[(t - 1) * classes + i] - log_partition;
                for (int j = 0; j < classes; j++) pairs[i * classes + j] += exponential(before + step(j)) * d_partition;
            }
        }
        __syncthreads();
        if (i < classes) beta[i] = past;
        __syncthreads();
    }
    partial += (long long)blockIdx.x * (classes + 2) * classes;
    if (i < classes) {
        if (d_path != 0 && behind > first) {
            if (labels[first] == i) at_start += d_path;
            if (labels[behind - 1] == i) at_end += d_path;
        }
        partial[classes * classes + i] = at_start;
        partial[(classes + 1) * classes + i] = at_end;
    }
    if (i == 0 && d_path != 0)
        for (long long t = first + 1; t < behind; t++)
            if (labels[t - 1] < classes && labels[t] < classes) pairs[labels[t - 1] * classes + labels[t]] += d_path;
    __syncthreads();
    for (int at = i; at < classes * classes; at += blockDim.x) partial[at] = pairs[at];
}
FOR_EACH_FLOAT(crf_scores_backward, (const T* emissions, const T* transitions, const unsigned* starts,
                                     const unsigned* labels, const double* alphas, const T* d_scores, T* d_emissions,
                                     double* partial, int classes, double partition, double path),
               (emissions, transitions, starts, labels, alphas, d_scores, d_emissions, partial, classes, partition, path))
