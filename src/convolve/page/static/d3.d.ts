// What the page uses of D3, for the type check; the library itself lies beside this as published (LICENSE.d3).

declare module "d3-array" {
  export function ticks(start: number, stop: number, count: number): number[];
  export function quantile(values: number[], part: number): number | undefined;
}

declare module "d3-shape" {
  export type Point = [number, number];
  export interface Line {
    (points: Point[]): string | null;
    x(value: (point: Point) => number): Line;
    y(value: (point: Point) => number): Line;
    curve(kind: unknown): Line;
  }
  export function line(): Line;
  export const curveBumpX: unknown;
}
