"""torch: a function's tensor operations, recorded once and run without Python."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from pyro_onebit.errors import NotCompilableError


class _Recorder(TorchDispatchMode):
    """Notes each operation on tensors as a node of a graph, after autograd: the backward pass's too.

    `make_fx` does this as well, and works out shapes and stack traces, which takes half as long as
    training. Tensors that are not results are held by reference, so that the graph sees the
    parameters as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root, self.graph = nn.Module(), Graph()
        self.nodes: dict[int, Node] = {}
        self.held: list[Any] = []  # what is noted by id must not be freed, or the id is another's

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or the first operation would import torch's compiler, to be left alone by it

    def note(self, tensor: Tensor, node: Node) -> Node:
        """Let `node` stand for `tensor`."""
        self.nodes[id(tensor)] = node
        self.held.append(tensor)
        return node

    def node(self, tensor: Tensor) -> Node:
        """The node that stands for `tensor`."""
        if id(tensor) not in self.nodes:
            name = f"constant{len(self.nodes)}"
            setattr(self.root, name, tensor)
            self.note(tensor, self.graph.get_attr(name))
        return self.nodes[id(tensor)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _SHAPED_BY_VALUES and any(t.dtype == torch.bool for t in args[1] if t is not None):
            raise NotCompilableError("a model or guide that picks elements by a mask cannot be compiled")
        result = func(*args, **kwargs)
        node = self.graph.call_function(func, *tree_map_only(Tensor, self.node, (args, kwargs)))
        if isinstance(result, Tensor):
            self.note(result, node)
        elif isinstance(result, tuple | list):
            for i, part in enumerate(result):
                self.note(part, self.graph.call_function(operator.getitem, (node, i)))
        else:
            raise NotCompilableError(
                "a model or guide that reads a tensor's value (`item`, an `if`) cannot be compiled"
            )
        return result


#: With a mask as an index, the shape of what these give or take depends on how many elements it picks.
_SHAPED_BY_VALUES = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default}


def record(f: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A function's operations on tensors, once and for all, for rows x of one shape.

    What is computed twice, forward and backward say, is computed once: with two layers a quarter of a step.

    Relied on: a `TorchDispatchMode` sees every operation, the backward pass's too; an operation that draws or writes
    says so; `torch.jit.trace` runs an FX graph without Python, and says that it will go: then the graph runs in Python,
    by torch's own functions, which take the arguments of the operations that are called like them. On a GPU a CUDA
    graph is replayed, whose results are the same tensors each time, with new noise in them.

    Raises:
        NotCompilableError: If a tensor's value is read, or elements are picked by a mask.
    """
    recorder = _Recorder()
    recorder.note(x, recorder.graph.placeholder("x"))
    with recorder:
        result = f(x)
    recorder.graph.output(tuple(recorder.node(part) for part in result))
    _compute_once(recorder.graph)
    recorder.graph.eliminate_dead_code()
    traces = hasattr(torch.jit, "trace") and not x.is_cuda
    for node in [] if traces else recorder.graph.nodes:
        node.target = _python_function(node.target)
    if traces:
        return _traced(recorder.root, recorder.graph, x)
    module = GraphModule(recorder.root, recorder.graph)
    return _captured(module, x) if x.is_cuda else module


#: By a graph's code, and shape and type of what it takes: what is traced is never freed, and each training has a graph.
_TRACED: dict[Hashable, Callable[..., tuple[Tensor, ...]]] = {}


def _traced(root: nn.Module, graph: Graph, x: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A graph without Python; its constants are arguments, so that another training's graph of the same form is it."""
    constants = list[Tensor]()
    last, *others = graph.nodes
    for node in others:
        if node.op == "get_attr":
            with graph.inserting_after(last):
                last = graph.placeholder(str(node.target))
            node.replace_all_uses_with(last)
            graph.erase_node(node)
            constants.append(getattr(root, str(last.target)))
    form = (graph.python_code("self").src, *((t.shape, t.stride(), t.dtype) for t in (x, *constants)))
    if form not in _TRACED:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit")
            _TRACED[form] = torch.jit.trace(GraphModule(root, graph), (x, *constants), check_trace=False)
    run = _TRACED[form]
    return lambda x: run(x, *constants)


@torch.no_grad()
def _captured(graph: GraphModule, x: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A graph on a GPU as a CUDA graph: launching a few hundred small kernels one by one takes five times as long."""
    given, side = x.clone(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # what libraries set up when they are first called cannot be captured
            graph(given)
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(captured):
            found = graph(given)
    except RuntimeError:  # an operation that waits for the GPU
        return graph

    def replay(x: Tensor) -> tuple[Tensor, ...]:
        given.copy_(x)
        captured.replay()
        return found

    return replay


def _compute_once(graph: Graph) -> None:
    """Let the first of several operations that are the same stand for all, and a tensor for itself without gradient.

    Results stay tensors of their own. Where something is written into a tensor, all is left as it is.
    """
    operations = [node for node in graph.nodes if node.op == "call_function"]
    of_torch = [node for node in operations if node.target is not operator.getitem]
    if any(node.target._schema.is_mutable for node in of_torch):
        return
    drawn = {node for node in of_torch if torch.Tag.nondeterministic_seeded in node.target.tags}
    first: dict[tuple[Any, ...], Node] = {}
    for node in operations:
        if node in drawn or any(user.op == "output" for user in node.users):
            continue
        same = (
            node.args[0]
            if node.target is torch.ops.aten.detach.default
            else first.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
        )
        if same is not node:
            node.replace_all_uses_with(same)
            graph.erase_node(node)


def _python_function(target: Any) -> Any:
    """Of an operation torch's own function, which begins in a third of the time; all else is returned as it is."""
    name = target._schema.name.removeprefix("aten::") if isinstance(target, torch._ops.OpOverload) else ""
    return getattr(Tensor if name in ("expand", "view") else torch._C._VariableFunctions, name, target)


def keep_freed_memory() -> None:
    """Make freed temporaries stay with the process, where the C library (glibc) would return them.

    Returned, each has to be mapped and cleared again at its next use, which at many dimensions takes
    longer than what is computed in it. The library keeps blocks up to the size of the largest that
    it has ever been given back, if that is at most 32 MB.
    """
    torch.empty(2**25 - 2**12, dtype=torch.uint8)
