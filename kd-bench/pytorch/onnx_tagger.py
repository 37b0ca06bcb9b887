"""The compact tagger as an ONNX graph (opset 17), built by hand: every layer is one node, as an exporter at its best would do."""

import numpy
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def lstm_weights(weights, layer):
    """PyTorch's gate order (i, f, g, o) to ONNX's (i, o, f, g), both directions stacked."""

    def gates(value):
        i, f, g, o = numpy.split(value, 4)
        return numpy.concatenate([i, o, f, g])

    both = lambda kind: [gates(weights[f"encoder.lstm.{kind}_l{layer}{suffix}"]) for suffix in ("", "_reverse")]
    biases = [numpy.concatenate(pair) for pair in zip(both("bias_ih"), both("bias_hh"))]
    return [numpy.stack(both("weight_ih")), numpy.stack(both("weight_hh")), numpy.stack(biases)]


def build(weights, batch, length, chars):
    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(numpy.ascontiguousarray(value), name))
        return name

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    integers = lambda name, *values: constant(name, numpy.array(values, dtype=numpy.int64))
    weight = lambda name: constant(name, weights[name])
    filters, width, kernel = weights["encoder.characters.conv.weight"].shape
    hidden = weights["encoder.lstm.weight_hh_l0"].shape[1]

    words = node("Gather", [weight("encoder.words.weight"), "words"], "word_vectors")
    flat = node("Reshape", ["chars", integers("flat_shape", batch * length, chars)], "flat_chars")
    x = node("Gather", [weight("encoder.characters.embedding.weight"), flat], "char_vectors")
    x = node("Transpose", [x], "char_channels", perm=[0, 2, 1])
    conv = [x, weight("encoder.characters.conv.weight"), weight("encoder.characters.conv.bias")]
    x = node("Conv", conv, "windows", kernel_shape=[kernel], pads=[kernel // 2] * 2)
    padding = node("Equal", [flat, integers("zero_id", 0)], "padding")
    padding = node("Unsqueeze", [padding, integers("channel_axis", 1)], "padding_of_channels")
    x = node("Where", [padding, constant("zero", numpy.float32(0)), x], "own_windows")
    x = node("ReduceMax", [x], "peaks", axes=[2], keepdims=0)
    x = node("Relu", [x], "features")
    x = node("Reshape", [x, integers("features_shape", batch, length, filters)], "word_features")
    x = node("Concat", [words, x], "inputs", axis=2)
    x = node("Transpose", [x], "time_first", perm=[1, 0, 2])
    states = integers("states_shape", length, batch, 2 * hidden)
    for layer in range(sum(name.startswith("encoder.lstm.weight_ih") for name in weights) // 2):
        parts = [constant(f"lstm_{layer}_{idx}", value) for idx, value in enumerate(lstm_weights(weights, layer))]
        x = node("LSTM", [x, *parts], f"lstm_{layer}", hidden_size=hidden, direction="bidirectional")
        x = node("Transpose", [x], f"lstm_{layer}_states", perm=[0, 2, 1, 3])  # (len, batch, 2, hidden)
        x = node("Reshape", [x, states], f"lstm_{layer}_joined")
    x = node("Transpose", [x], "batch_first", perm=[1, 0, 2])
    x = node("Reshape", [x, integers("rows_shape", batch * length, 2 * hidden)], "rows")
    node("Gemm", [x, weight("out.weight"), weight("out.bias")], "logits", transB=1)

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tagger",
        [
            value("words", TensorProto.INT64, [batch, length]),
            value("chars", TensorProto.INT64, [batch, length, chars]),
        ],
        [value("logits", TensorProto.FLOAT, [batch * length, weights["out.weight"].shape[0]])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def prepare(tensors, threads):
    """What is timed, and the same returning the logits."""
    weights = {name.removeprefix("weights."): value.numpy() for name, value in tensors.items() if name.startswith("weights.")}
    inputs = {name: tensors[name].numpy() for name in ("words", "chars")}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Its threads spin during a call, as by default, but not after it, when the other side is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    model = build(weights, *inputs["chars"].shape).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return (lambda: session.run(None, inputs)), (lambda: session.run(None, inputs)[0])
