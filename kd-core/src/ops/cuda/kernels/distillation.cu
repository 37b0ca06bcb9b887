// The losses against labels and a teacher, a row a warp or a block. A row of a vocabulary takes a third longer with 512 threads
// and loops unrolled by hand.
#undef THREADS
#define THREADS 1024

// Largest value and sum of exp((x - max) * inverse) of a row.
template <class T, class V>
__device__ void soft_moments(const T* x, int classes, V inverse, V& max, V& sum) {
    max = nothing(V());
    for (int i = threadIdx.x; i < classes; i += blockDim.x) max = larger(max, load(x[i]));
    max = over_row<Max>(max);
    sum = 0;
    for (int i = threadIdx.x; i < classes; i += blockDim.x) sum += exponential((load(x[i]) - max) * inverse);
    sum = over_row<Sum>(sum);
}

// labels or teacher may be null. A label that is no class gives NaN.
template <class T>
__device__ void distillation(const T* student, const T* teacher, const unsigned* labels, T* parts, long long rows,
                             int classes, double temperature) {
    typedef A<T> V;
    long long row = row_of_thread();
    if (row >= rows) return;
    student += row * classes;
    V max, sum;
    if (labels) {
        soft_moments(student, classes, (V)1, max, sum);
        unsigned label = labels[row];
        V hard = label < classes ? logarithm(sum) - (load(student[label]) - max) : nothing(V()) * 0;
        if (threadIdx.x == 0) store(parts[row], hard);
        parts += rows;
    }
    if (teacher) {
        teacher += row * classes;
        V inverse = (V)(1 / temperature), teacher_max, teacher_sum;
        soft_moments(student, classes, inverse, max, sum);
        soft_moments(teacher, classes, inverse, teacher_max, teacher_sum);
        V gaps = 0;
        for (int i = threadIdx.x; i < classes; i += blockDim.x) {
            V s = (load(student[i]) - max) * inverse, t = (load(teacher[i]) - teacher_max) * inverse;
            V p = exponential(t);
            // Where p is 0 the difference may be infinite; NaN must pass.
            gaps += p == 0 ? 0 : p * (t - s);
        }
        gaps = over_row<Sum>(gaps);
        V soft = gaps / teacher_sum + (logarithm(sum) - logarithm(teacher_sum));
        if (threadIdx.x == 0) store(parts[row], soft * (V)(temperature * temperature));
    }
}
FOR_EACH_FLOAT(distillation, (const T* student, const T* teacher, const unsigned* labels, T* parts, long long rows,
                              int classes, double temperature),
               (student, teacher, labels, parts, rows, classes, temperature))

template <class T>
__device__ void distillation_backward(const T* student, const T* teacher, const unsigned* labels, const T* d_parts,
                                      T* d_student, long long rows, int classes, double temperature) {
    typedef A<T> V;
    long long row = row_of_thread();
    if (row >= rows) return;
    student += row * classes;
    d_student += row * classes;
    V inverse = (V)(1 / temperature), d_hard = 0, d_soft = 0;
    V max = 0, sum = 1, soft_max = 0, soft_sum = 1, teacher_max = 0, teacher_sum = 1;
    unsigned label = 0xffffffffu;
    if (labels) {
        label = labels[row];
        d_hard = load(d_parts[row]);
        d_parts += rows;
        soft_moments(student, classes, (V)1, max, sum);
    }
    if (teacher) {
        teacher += row * classes;
        d_soft = load(d_parts[row]) * (V)temperature;
        soft_moments(student, classes, inverse, soft_max, soft_sum);
        soft_moments(teacher, classes, inverse, teacher_max, teacher_sum);
    }
    for (int i = threadIdx.x; i < classes; i += blockDim.x) {
        V x = load(student[i]), d = 0;
        if (labels) d += (exponential(x - max) / sum - (i == label ? 1 : 0)) * d_hard;
        if (teacher)
            d += (exponential((x - soft_max) * inverse) / soft_sum -
                  exponential((load(teacher[i]) - teacher_max) * inverse) / teacher_sum) * d_soft;
        store(d_student[i], d);
    }
}
FOR_EACH_FLOAT(distillation_backward, (const T* student, const T* teacher, const unsigned* labels, const T* d_parts,
                                       T* d_student, long long rows, int classes, double temperature),
               (student, teacher, labels, d_parts, d_student, rows, classes, temperature))
