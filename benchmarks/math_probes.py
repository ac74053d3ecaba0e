r"""Answers written by us, by kind: REWRITTEN mean the gold answer and should be right, NEAR should be wrong.

The second set was written when the rules were done, and judged once before they were mended; the docs say how.

A line is `gold => answer | answer | ...`; `docs/math.md` shows how many of each kind are judged otherwise.
"""

REWRITTEN = {
    "integer": r"""
        42 => 42. | $42$ | 42.0 | +42 | 042 | \text{42} | 21 \cdot 2 | 2^5+10 | 6 \times 7 | \frac{84}{2}
        42 => \sqrt{1764} | x = 42 | n=42 | f(3) = 42
        1000000 => 1,000,000 | 1{,}000{,}000 | 1\,000\,000 | 1,\!000,\!000 | 10^6 | 10^{6} | 1 \times 10^6
        -7 => −7 | - 7 | -7.00 | \left(-7\right) | x = -7
        120 => 5! | \binom{10}{3} | 120\text{ ways} | m+n = 120
    """,
    "decimal": r"""
        0.15 => .15 | 0.150 | \frac{3}{20} | 3/20 | 15\% | 1.5 \times 10^{-1}
        326.5 => 326.50 | \frac{653}{2} | 326\frac{1}{2}
        1.41421356 => \sqrt{2} | \sqrt2
        .35625 => 0.35625 | \frac{57}{160}
    """,
    "fraction": r"""
        \frac{1}{2} => 1/2 | 0.5 | .5 | \frac12 | \dfrac{1}{2} | \tfrac12 | \frac{2}{4} | 50\% | 2^{-1}
        \frac{1}{2} => \left(\frac{1}{2}\right) | p = \frac12 | \frac{1}{1+1}
        -\frac{35}{9} => \frac{-35}{9} | -35/9 | \frac{35}{-9} | -3\frac{8}{9}
        \frac{3}{56} => \frac 3{56} | 3/56 | 3:56 | \frac{6}{112}
    """,
    "mixed number": r"""
        1\frac{4}{5} => 1 \frac{4}{5} | \frac{9}{5} | 9/5 | 1.8 | 1 4/5 | 1\frac45 | 1 + \frac{4}{5}
        137 \frac{1}{2} => 137.5 | \frac{275}{2}
    """,
    "radical": r"""
        3\sqrt{13} => 3 \sqrt{13} | \sqrt{117} | 3\cdot\sqrt{13} | \sqrt{13}\cdot 3 | 3\sqrt{13}\text{ cm} | 3*sqrt(13)
        \frac{\sqrt{3}}{3} => \frac{1}{\sqrt{3}} | \frac1{\sqrt3} | \sqrt{\frac{1}{3}} | \sqrt{3}/3 | \frac{\sqrt3}3
        11\sqrt5+11 => 11(1+\sqrt{5}) | 11 + 11\sqrt{5}
        \sqrt[3]{16} => 2\sqrt[3]{2} | 16^{1/3} | 2^{4/3}
    """,
    "with pi": r"""
        288\pi => 288 \pi | \pi \cdot 288 | 288π | 288pi | 288\pi\text{ cubic inches} | V = 288\pi
        18+2\pi => 2\pi + 18 | 2(9+\pi)
        -\frac{\pi}{6} => \frac{-\pi}{6} | -\pi/6 | -\frac16\pi
    """,
    "complex": r"""
        6-5i => 6 - 5i | -5i + 6 | 6-5 i | z = 6-5i
        2i => (1+i)^2 | 0+2i
        1+274i => 1 + 274 i | 274i+1
    """,
    "polynomial": r"""
        x^3+3x-6 => x^3 + 3x - 6 | -6+3x+x^3 | x^{3}+3x-6 | p(x) = x^3+3x-6 | x(x^2+3)-6
        (a+5)(b+2) => (b+2)(a+5) | ab+2a+5b+10
        6r^2-4r-24 => 2(3r^2-2r-12) | 6r^2 - 4(r+6)
        5r^5 => 5 r^{5} | 5r^{5}
    """,
    "other function": r"""
        \cot x => \frac{\cos x}{\sin x} | \frac{1}{\tan x} | \cot(x)
        \frac{11+9a}{20} => \frac{9a+11}{20} | 0.45a+0.55 | \frac{11}{20}+\frac{9a}{20}
        \ln 8 => 3\ln 2 | \ln(8)
        2^{n+1} => 2\cdot 2^n
        \log_2 3 => \frac{\ln 3}{\ln 2} | \frac{\log 3}{\log 2}
    """,
    "tuple": r"""
        (3, \frac{\pi}{2}) => \left(3, \frac{\pi}{2}\right) | (3,\pi/2) | \left( 3.0,\, 0.5\pi \right)
        (3, \frac{\pi}{2}) => (r,\theta) = (3, \frac{\pi}{2})
        (6,31,-1) => 6, 31, -1 | (6, 31, -1) | \langle 6,31,-1\rangle | (p,q,r)=(6,31,-1)
        (\frac{3}{2}, -13) => (1.5,-13) | (3/2, -13)
    """,
    "interval": r"""
        (3,4] => \left(3, 4\right] | x \in (3,4] | 3 < x \le 4 | (3, 4.0]
        (2,\infty) => (2, +\infty) | x > 2 | x \in (2,\infty) | 2 < x
        (-\infty, 0] => x \le 0 | (-\infty,0]
        x \in [-2,7] => [-2,7] | -2 \le x \le 7 | [-2, 7]
        (0,9) \cup (9,36) => (9,36) \cup (0,9) | (0, 9) ∪ (9, 36) | x \in (0,9) \cup (9,36)
    """,
    "list of values": r"""
        1,-2 => -2, 1 | 1 \text{ and } -2 | -2 and 1 | x=1 \text{ or } x=-2 | \{1,-2\} | x = 1, -2
        3, 5, 7 => 3,5,7 | 7,5,3 | 3, 5, and 7 | 5; 3; 7
        1 \pm \sqrt{19} => 1+\sqrt{19}, 1-\sqrt{19} | 1 - \sqrt{19}, 1 + \sqrt{19} | x = 1 \pm \sqrt{19} | 1\pm\sqrt{19}
    """,
    "set": r"""
        \{1\pm\sqrt{5},-2\} => \{-2, 1+\sqrt5, 1-\sqrt5\} | -2, 1\pm\sqrt{5} | \left\{1\pm\sqrt{5},-2\right\}
        \{1,2,3\} => \{3,2,1\} | 1,2,3 | \lbrace 1, 2, 3 \rbrace
        \emptyset => \varnothing | \{\}
    """,
    "matrix": r"""
        \begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix} => \begin{pmatrix} -\frac13 \\ \frac23 \end{pmatrix}
        \begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix} => \begin{bmatrix} -1/3 \\ 2/3 \end{bmatrix}
        \begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix} => \frac{1}{3}\begin{pmatrix} -1 \\ 2 \end{pmatrix}
        \begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix} => \mathbf{v} = \begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}
        \begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix} => \begin{pmatrix}-1&0\\0&-1\end{pmatrix}
        \begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix} => -\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}
        \begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix} => \left(\begin{matrix} -1 & 0 \\ 0 & -1 \end{matrix}\right)
    """,
    "text": r"""
        \text{Evelyn} => Evelyn | \text{evelyn} | \textbf{Evelyn} | \mathrm{Evelyn} | \mbox{ Evelyn }
        \text{ellipse} => ellipse | \text{an ellipse} | \text{Ellipse.}
        \text{even} => \text{Even} | even
        \text{no solution} => \text{No solution} | no solution
    """,
    "choice": r"""
        \text{(C)} => C | (C) | \text{C} | \textbf{(C)} | \mathrm{C} | C. | \boxed{C}
        B => \text{B} | (B) | \textbf{(B)}
    """,
    "percent": r"""
        10\% => 10 \% | 10% | 10\text{ percent} | 10 percent | 0.1 | \frac{1}{10} | 10.0\%
        25 => 25\% | 25 \text{ percent}
        0.25 => 25\%
    """,
    "money": r"""
        \$18.90 => 18.90 | 18.9 | \$18.9 | 18.90\text{ dollars} | \$ 18.90 | 18.90 \text{ USD}
        \$32,\!348 => 32348 | 32,348 | \$32{,}348 | \$32348.00
        18 => \$18 | 18\text{ dollars} | 18 dollars
        5.4\text{ cents} => 5.4 | 5.4 \text{ cents} | 5.4\text{ cent}
    """,
    "degrees": r"""
        90^\circ => 90 | 90° | 90^{\circ} | 90\text{ degrees} | 90 degrees | \angle ABC = 90^\circ
        30 => 30^\circ | 30\text{ degrees}
        \frac{270}{7}\text{ degrees} => \frac{270}{7}^\circ | 38\frac{4}{7} | 270/7
    """,
    "unit": r"""
        15\text{ cm}^2 => 15 | 15 \text{ cm}^{2} | 15 cm^2 | 15\text{ square centimeters} | 15 \, \mathrm{cm}^2
        15\text{ cm}^2 => 15\text{ sq cm}
        864\mbox{ inches}^2 => 864 | 864 \text{ in}^2 | 864\text{ square inches}
        60\text{ mph} => 60
        60\text{ miles per hour} => 60 | 60\text{ miles/hour}
        12 => 12\text{ eggs} | 12 eggs | 12\text{ red apples} | 12\text{ m/s}
    """,
    "base": r"""
        52_8 => 52_{8} | 52_{\text{eight}} | (52)_8
        4210_{5} => 4210_5 | 4210_{\text{five}}
        255 => 255_{10}
    """,
    "equation": r"""
        x=5 => 5 | x = 5 | x=5.0 | 5 = x | x = \frac{10}{2}
        y=2x+3 => y = 3+2x | 2x+3 | 2x - y + 3 = 0 | y - 2x = 3 | f(x) = 2x+3
        5x-7y+11z+4=0 => 5x - 7y + 11z = -4 | -5x+7y-11z-4=0
        5 => x=5 | x = 2+3 = 5 | 2+3 = 5 | 5=5
    """,
    "inequality": r"""
        x \ge 3 => x \geq 3 | 3 \le x | [3,\infty) | x ≥ 3 | x \in [3,\infty)
        -1 < x < 4 => (-1,4) | x \in (-1, 4) | 4 > x > -1
    """,
    "scientific": r"""
        .0000672 => 6.72 \times 10^{-5} | 0.0000672 | 6.72\cdot 10^{-5} | 6.72e-5 | 6.72 × 10^{-5}
        3\times 10^8 => 300000000 | 300,000,000 | 3\cdot 10^{8} | 3 \times 10^{8}\text{ m/s}
    """,
    "second set": r"""
        7 => 7 \text{ units} | \displaystyle 7 | {7} | \mathbf{7} | 7! / 720 | \lfloor 7.9 \rfloor | \frac{49}{7}
        7 => k = 7 | \text{7 apples} | \$7\$
        2400 => 2{,}400 | 2\;400 | \$2,400 | 2,400.00 | 24 \cdot 100 | 2.4 \times 10^3
        -\frac{2}{3} => -\dfrac{2}{3} | -2/3 | - \frac23 | \frac{-4}{6} | -\left(\frac{2}{3}\right) | x = -\frac{2}{3}
        -\frac{2}{3} => -0.\overline{6}
        \frac{1}{6} => \frac16 | 1/6 | P = \frac{1}{6} | \dfrac{1}{6} | 6^{-1}
        2+\sqrt{5} => \sqrt{5}+2 | 2+\sqrt5 | \frac{4+2\sqrt{5}}{2} | \frac{1}{\sqrt{5}-2}
        \frac{5\pi}{6} => \frac{5}{6}\pi | 5\pi/6 | \dfrac{5\pi}{6} | \frac{5\pi}{6}\text{ radians}
        x^2-4 => (x-2)(x+2) | -4+x^2 | x^{2} - 4 | f(x)=x^2-4
        \frac{x}{x+1} => 1-\frac{1}{x+1} | x/(x+1) | \frac{x}{1+x}
        e^{2x} => (e^x)^2 | \exp(2x) | e^{2 x}
        \sin^2 x => 1-\cos^2 x | (\sin x)^2 | \sin^{2}(x)
        (0,0),(1,1) => (1,1), (0,0) | (0,0) \text{ and } (1,1) | \{(0,0),(1,1)\} | (0, 0) or (1, 1)
        (-1,\frac12) => (-1, 0.5) | \left(-1, \dfrac{1}{2}\right) | (x,y) = (-1, 1/2)
        [0,1] => 0 \le x \le 1 | \left[0, 1\right] | x\in[0,1]
        (-\infty,-1)\cup(1,\infty) => (-\infty, -1) \cup (1, +\infty) | x < -1 \text{ or } x > 1
        (-\infty,-1)\cup(1,\infty) => (1,\infty)\cup(-\infty,-1)
        \{-3,3\} => \pm 3 | x = \pm 3 | -3, 3 | 3 \text{ or } -3
        50\text{ km/h} => 50 | 50\ \text{km/h} | 50\text{ km per hour} | 50 km/h
        120\text{ cm}^3 => 120 | 120\text{ cubic centimeters} | 120\,\text{cm}^3 | 120~\mathrm{cm^3}
        45^\circ => 45 | 45^{\circ} | 45 \text{ degrees} | \theta = 45^\circ | m\angle A = 45^\circ
        \text{Tuesday} => Tuesday | \text{tuesday} | \textbf{Tuesday}
        \text{(A)} => A | \text{(A)} | \mathbf{A} | (A) | \textrm{A}
        1011_2 => 1011_{2} | 1011_{\text{two}} | 1011_{(2)}
        75\% => 75\% | \frac{3}{4} | 0.75 | 75 \% 
        \$4.50 => 4.50 | 4.5 | \$4.5 | \frac{9}{2} | \$4\frac{1}{2}
        y=-\frac{1}{2}x+3 => y = 3 - \frac{x}{2} | y = -0.5x + 3 | x+2y=6 | -\frac{1}{2}x+3
        n^2+n => n(n+1) | n^{2}+n
        \begin{pmatrix} 0 & 1 \\ 1 & 0 \end{pmatrix} => \begin{bmatrix} 0 & 1 \\ 1 & 0 \end{bmatrix}
        \begin{pmatrix} 0 & 1 \\ 1 & 0 \end{pmatrix} => \left[\begin{array}{cc} 0 & 1 \\ 1 & 0 \end{array}\right]
        2:3 => 2 : 3 | \frac{2}{3}
        10:30 => 10:30 | 10{:}30
        3x+2y => 2y+3x
        \frac{a}{b} => a/b | \dfrac{a}{b}
        \log 2 => \log(2)
        3.5 \text{ hours} => 3.5 | \frac{7}{2}\text{ hours} | 3.5\text{ hr}
    """,
}

NEAR = {
    "integer": r"""
        42 => 43 | -42 | 4.2 | 420 | 24 | 42 or 43 | 41, 42 | 42! | \text{forty-two} | \text{about } 42 | \approx 42
        42 => 42 \pm 1 | 42_{8} | (42, 42) | 42x | 4 2 | 42\text{ million} | 42\text{ or so} | 42?43 | [42] + 1
        42 => \text{not } 42 | 42 = 43
        1000000 => 1,000,00 | 1,000 | 1.000.000 | 1, 000, 000, 0 | 10^5 | 1\text{ million}
        0 => 0 \text{ or maybe } 1 | 0\text{ is wrong, } 5 | \text{none} | 1 | \emptyset | 10^{-9}
    """,
    "decimal": r"""
        0.15 => 0.1 | 0.2 | 1.5 | 0.151 | 0.1500001 | \frac{2}{13} | 15 | 0,15
        326.5 => 326 | 327 | 3265 | 326.49
        1.41421356 => 1.41421357 | 1.414 | \sqrt{3} | 1.4142135623
    """,
    "fraction": r"""
        \frac{1}{3} => 0.333 | 0.333333333333 | \frac{3}{1} | \frac{1}{4} | -\frac13 | \frac{2}{3} | 1, 3 | 33\%
        \frac{1}{3} => 33.33\%
        \frac{43}{10} => \frac{4}{310} | \frac 4310 | \frac{34}{10}
    """,
    "mixed number": r"""
        1\frac{4}{5} => \frac{4}{5} | 14/5 | 1\frac{5}{4} | 1.45 | 1 - \frac45
    """,
    "radical": r"""
        3\sqrt{13} => 13\sqrt{3} | \sqrt{39} | \sqrt{13} | -3\sqrt{13} | 3\sqrt{13}+10^{-6} | 10.8166538
        3\sqrt{13} => \pm 3\sqrt{13}
        \sqrt{2} => 1.41421356 | 1.414213562373095048801688724209698 | \sqrt[3]{2} | 2
    """,
    "with pi": r"""
        \pi => 3.14 | 3.14159265358979 | \frac{22}{7} | 2\pi | p
        288\pi => 288 | 904.78 | \pi | 288\pi^2
    """,
    "complex": r"""
        6-5i => 6+5i | 5-6i | -6+5i | 6 | 6-5j | 6 - 5
    """,
    "polynomial": r"""
        x^3+3x-6 => x^3-3x-6 | x^3+3x+6 | y^3+3y-6 | x^3+3x | x^3+3x-6 = 0 | x^2+3x-6 | -(x^3+3x-6)
        (a+5)(b+2) => (a+2)(b+5) | a+5, b+2 | (a+5)+(b+2)
        2k+2 => 2n+2 | 2k | 2k+2, 2k+4
    """,
    "other function": r"""
        \cot x => \tan x | \cot y | \cot | \arctan x | \cot 2x
        \ln 8 => \log_{10} 8 | \ln 9 | 2.0794415
    """,
    "tuple": r"""
        (1,2) => (2,1) | [1,2] | \{1,2\} | (1,2,3) | (1) | (1;3) | (1,-2) | 2,1 | 1 | (1,2),(3,4) | (1,2] | \frac{1}{2}
        (3, \frac{\pi}{2}) => (\frac{\pi}{2}, 3) | (3, 90^\circ) | (3, 1.5708)
    """,
    "interval": r"""
        (3,4] => [3,4] | (3,4) | [3,4) | 3 < x < 4 | (4,3] | 3,4
        (2,\infty) => [2,\infty) | (-\infty,2) | x \ge 2 | 2 | (2,\infty] \cup \{1\}
        (0,9) \cup (9,36) => (0,36) | (0,9) \cap (9,36) | (0,9),(9,36) | (0,9] \cup (9,36)
    """,
    "list of values": r"""
        1,-2 => 1,2 | 1 | -2 | 1,-2,3 | (1,-2) | 1,1 | 1 \pm 2 | -1,2
        1 \pm \sqrt{19} => 1+\sqrt{19} | \pm 1 + \sqrt{19} | 1 \pm \sqrt{18} | 1, \sqrt{19}
    """,
    "set": r"""
        \{1,2,3\} => \{1,2\} | \{1,2,3,4\} | (1,2,3) | [1,3] | \{1,2,4\} | 6
        \emptyset => 0 | \{0\} | \text{all real numbers}
    """,
    "matrix": r"""
        \begin{pmatrix} 1 \\ 2 \end{pmatrix} => \begin{pmatrix} 2 \\ 1 \end{pmatrix}
        \begin{pmatrix} 1 \\ 2 \end{pmatrix} => \begin{pmatrix} 1 & 2 \end{pmatrix}
        \begin{pmatrix} 1 \\ 2 \end{pmatrix} => \begin{pmatrix} 1 \\ 2 \\ 0 \end{pmatrix} | (1,3)
        \begin{pmatrix} 1 \\ 2 \end{pmatrix} => \begin{pmatrix} 1 \\ -2 \end{pmatrix} | 3
        \begin{pmatrix} 1 \\ 2 \end{pmatrix} => -\begin{pmatrix} 1 \\ 2 \end{pmatrix}
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} => \begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix} | -2
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} => \begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}
    """,
    "text": r"""
        \text{Evelyn} => Angela | \text{not Evelyn} | \text{Evelyn or Angela} | Evenly | E | \text{Eve} | 5
        \text{Evelyn} => \text{Evelyn} + 1
        \text{even} => \text{odd} | \text{neither even} | \text{even, odd} | neve
    """,
    "choice": r"""
        \text{(C)} => D | c | \text{(C) or (D)} | C, D | CD | \text{not C} | C+1 | 3
    """,
    "percent": r"""
        10\% => 10 | 1\% | 0.01 | 100\% | 0.10\% | 10\text{ dollars} | 1000\% | 10^\circ
        25 => 0.25 | 2.5\%
    """,
    "money": r"""
        \$18.90 => \$18.09 | \$1890 | 1890\text{ cents} | 18 | \$18.90\text{ or }\$19 | 18.90\text{ euros} | \$19
        \$5 => 5\text{ cents} | 5\% | \$5\text{ million}
    """,
    "degrees": r"""
        90^\circ => \frac{\pi}{2} | 90\text{ radians} | 45^\circ | 90\% | 9^\circ | 90\text{ minutes}
    """,
    "unit": r"""
        15\text{ cm}^2 => 15\text{ cm} | 15\text{ m}^2 | 15\text{ cm}^3 | 0.0015\text{ m}^2 | 1.5\text{ cm}^2
        15\text{ cm}^2 => \text{cm}^2
        12 => 12\text{ dozen} | 12\text{ thousand} | 12\text{ or } 13\text{ eggs}
    """,
    "base": r"""
        52_8 => 52 | 42 | 52_9 | 25_8 | 52_{10} | 42_{10} | 101010_2
    """,
    "equation": r"""
        x=5 => y=5 | x=-5 | x=5,6 | x>5 | x=5y | x \ne 5
        y=2x+3 => y=2x-3 | x=2y+3 | y=2x | y>2x+3 | 2x+4 | y = 3x+2
        5x-7y+11z+4=0 => 5x-7y+11z+4 | 5x-7y+11z=4 | 5x-7y+4=0
        5 => 6 = 5 | 5 = 6 | x = 5 = 6 | 2x = 5 | x^2 = 5 | x < 5
    """,
    "inequality": r"""
        x \ge 3 => x > 3 | x \le 3 | 3 | x = 3 | (3,\infty) | y \ge 3 | x \ge -3
    """,
    "scientific": r"""
        .0000672 => 6.72 \times 10^{5} | 6.72 \times 10^{-4} | 6.72 | 6.72 \times 10 | 6.7 \times 10^{-5}
        3\times 10^8 => 3\times 10^7 | 3 \times 108 | 30^8 | 3 + 10^8
    """,
    "second set": r"""
        7 => 7 \text{ or } 8 | 07.1 | 70 | \{7, 8\} | 7x | -7 | 7,7 | 7 \to 8 | 7 / 2 | \text{seven}
        7 => 7 \text{ hundred} | 7^{2} | \frac{7}{7} | 7 - 7 | ? | 7?
        2400 => 2.4 | 240 | 24,00 | 2,40 | 2400_{10}_3 | 2401 | 2 400 1
        -\frac{2}{3} => \frac{2}{3} | -\frac{3}{2} | -0.67 | -0.6667 | 2,3
        2+\sqrt{5} => 2-\sqrt{5} | 2\sqrt{5} | 4.236 | 2+\sqrt{6} | \sqrt{2+5}
        \frac{5\pi}{6} => 150^\circ | \frac{6\pi}{5} | 5/6 | 2.618
        x^2-4 => x^2+4 | x-2 | (x-2)^2 | x^2-4=0 | t^2-4 | \pm 2
        \frac{x}{x+1} => \frac{x}{x-1} | \frac{x+1}{x} | x
        e^{2x} => e^{x^2} | 2e^x | e^2
        \sin^2 x => \sin x^2 | \cos^2 x | 1
        (0,0),(1,1) => (0,0) | (0,1),(1,0) | (0,0,1,1) | 0,0,1,1
        (-1,\frac12) => (\frac12,-1) | (-1,-\frac12) | [-1,\frac12] | -1
        [0,1] => (0,1) | [0,1) | [1,0] | 0 < x < 1 | \{0,1\} | 0,1
        (-\infty,-1)\cup(1,\infty) => (-\infty,-1]\cup[1,\infty) | (-1,1) | x > 1 | (-\infty,\infty)
        \{-3,3\} => 3 | -3 | \{3\} | (-3,3) | [-3,3] | \{-3,0,3\}
        50\text{ km/h} => 50\text{ m/s} | 50\text{ km} | 51 | 50\text{ mph}
        45^\circ => \frac{\pi}{4} | 45' | 135^\circ | 45^2 | 45\text{ cm}
        \text{Tuesday} => Thursday | \text{Tues} | \text{Tuesday and Monday} | \text{not Tuesday} | 2
        \text{(A)} => a | B | \text{A and B} | \text{AB} | \text{(A) or (B)} | \text{none}
        1011_2 => 1011 | 11 | 1011_3 | 1101_2 | 11_{10}
        75\% => 75 | 7.5\% | 0.075 | 25\%
        \$4.50 => \$45.0 | \$4.05 | 450 | 4.50\text{ cents} | \$-4.50
        y=-\frac{1}{2}x+3 => y=\frac12 x+3 | y=-2x+3 | x=-\frac12y+3 | y=-\frac12x-3 | 3
        \begin{pmatrix} 0 & 1 \\ 1 & 0 \end{pmatrix} => \begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}
        \begin{pmatrix} 0 & 1 \\ 1 & 0 \end{pmatrix} => \begin{pmatrix} 0 & 1 \end{pmatrix} | -1 | 0,1,1,0
        2:3 => 3:2 | 23 | 2:3:4 | 2,3
        10:30 => 10:31 | 1030 | 30:10
        3.5 \text{ hours} => 3.5\text{ minutes} | 35 | 3\text{ hours} | 3:50
    """,
}


def probes(table):
    """Return (kind, gold, answer) for each answer of a table."""
    for kind, lines in table.items():
        for line in filter(str.strip, lines.splitlines()):
            gold, answers = line.strip().split(" => ")
            yield from ((kind, gold, answer.strip()) for answer in answers.split(" | "))
