"""A writer of vector instructions, in LLVM's own language."""

from llvmlite import ir

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32, POINTER = ir.FloatType(), ir.PointerType()
INTS, FLOATS = ir.VectorType(I32, 16), ir.VectorType(F32, 16)
BYTES, WORDS = ir.VectorType(I8, 64), ir.VectorType(I16, 32)
ZERO = ir.Constant(INTS, None)
VECTOR = 64  # bytes


class Code:
    """A writer of vector instructions; offsets are in bytes, and may be Python integers."""

    def __init__(self, builder):
        self.b = builder

    def at(self, pointer, offset):
        """Return the address that lies ``offset`` bytes further."""
        offset = I64(offset) if isinstance(offset, int) else offset
        return self.b.gep(pointer, [offset], source_etype=I8)

    def plus(self, a, b):
        """Add integers, the second of which may be a Python integer."""
        return self.b.add(a, I64(b) if isinstance(b, int) else b)

    def times(self, a, b):
        """Multiply integers, the second of which may be a Python integer."""
        return self.b.mul(a, I64(b) if isinstance(b, int) else b)

    def least(self, a, b):
        """Return the smaller of two integers."""
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    def load(self, kind, pointer, offset=0):
        """Read a value of any kind, aligned or not."""
        return self.b.load(self.at(pointer, offset), typ=kind, align=1)

    def store(self, value, pointer, offset=0):
        """Write a value, aligned or not."""
        self.b.store(value, self.at(pointer, offset), align=1)

    def call(self, name, result, *values):
        """Call an LLVM intrinsic."""
        kind = ir.FunctionType(result, [value.type for value in values])
        function = self.b.module.globals.get(name) or ir.Function(self.b.module, kind, name)
        return self.b.call(function, values)

    def everywhere(self, value):
        """Copy one value into all 16 places of a vector."""
        vector = ir.Constant(ir.VectorType(value.type, 16), ir.Undefined)
        vector = self.b.insert_element(vector, value, I32(0))
        return self.b.shuffle_vector(vector, vector, ir.Constant(INTS, [0] * 16))

    def room(self, size, name=""):
        """Return so many bytes of the stack, from the start of a cache line on.

        Who asks for a name again, in the same core, gets the same bytes.
        """
        first = self.b.function.entry_basic_block  # in a loop, each round would take more
        known = [value for value in first.instructions if name and value.name == name]
        with self.b.goto_entry_block():
            pointer = known[0] if known else self.b.alloca(ir.ArrayType(I8, size), name=name)
            pointer.align = VECTOR
            return self.b.inttoptr(self.b.ptrtoint(pointer, I64), POINTER)  # an untyped one

    def table(self, name, kind, values):
        """Return the address of a table of constants, one of each name in a core's module."""
        known = self.b.module.globals.get(name)
        if known is None:
            known = ir.GlobalVariable(self.b.module, ir.ArrayType(kind, len(values)), name)
            known.linkage, known.global_constant = "internal", True
            known.initializer = ir.Constant(known.value_type, values)
        return self.b.bitcast(known, POINTER)

    def prefetch(self, pointer, offset):
        """Ask for memory that is needed soon."""
        values = self.at(pointer, offset), I32(0), I32(3), I32(1)
        self.call("llvm.prefetch.p0", ir.VoidType(), *values)

    def loop(self, count, values, body):
        """Write ``for i in range(count): values = body(i, values)``; return the values."""
        b, before = self.b, self.b.block
        start, end = b.append_basic_block("loop"), b.append_basic_block("after")
        b.cbranch(b.icmp_signed(">", count, I64(0)), start, end)
        b.position_at_end(start)
        i, *carried = [b.phi(value.type) for value in [I64(0), *values]]
        new = body(i, carried)
        following, last = b.add(i, I64(1)), b.block
        b.cbranch(b.icmp_signed("<", following, count), start, end)
        _join([i, *carried], before, [I64(0), *values], last, [following, *new])
        b.position_at_end(end)
        results = [b.phi(value.type) for value in values]
        _join(results, before, values, last, new)
        return results


def _join(phis, before, early, last, late):
    """Let each phi be one value when coming from one block, another from the other."""
    for phi, first, later in zip(phis, early, late, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, last)
